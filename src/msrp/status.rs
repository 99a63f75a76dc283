//! RFC 4975 §10: response codes.

pub const OK: u16 = 200;
/// A request was unintelligible.
pub const BAD_REQUEST: u16 = 400;
/// The action is not allowed.
pub const FORBIDDEN: u16 = 403;
/// A downstream transaction did not complete in time.
pub const TIMEOUT: u16 = 408;
/// The receiver wishes the sender to stop this message.
pub const STOP: u16 = 413;
/// A media type that is not understood.
pub const UNSUPPORTED_TYPE: u16 = 415;
/// No such session.
pub const NO_SESSION: u16 = 481;
/// The method is not understood.
pub const UNKNOWN_METHOD: u16 = 501;
/// The session is bound to another connection.
pub const WRONG_CONNECTION: u16 = 506;

/// The comment we write beside a code.
pub const fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        413 => "Message Too Large",
        415 => "Unsupported Media Type",
        423 => "Parameter Out Of Bounds",
        481 => "Session Does Not Exist",
        501 => "Not Implemented",
        506 => "Session Already In Use",
        _ => "Failed",
    }
}
