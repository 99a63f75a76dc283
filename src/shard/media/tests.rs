//! Ladders of the media core: what goes in on one leg and what comes out on the others, octet by octet.

use super::harness::*;
use super::*;
use crate::msrp::leg::{Direction, SessionKind};

mod relaying;
