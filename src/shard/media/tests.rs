//! Ladders of the media core: what goes in on one leg and what comes out on the others, octet by octet.

use super::harness::*;
use super::*;
use crate::msrp::leg::{Direction, SessionKind};

mod answers;
mod closing;
mod cutting;
mod fan_out;
mod files;
mod held_answers;
mod lifecycle;
mod mutations;
mod pressure;
mod relaying;
mod reporting;

use relaying::session;
