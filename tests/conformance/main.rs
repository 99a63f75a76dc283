//! Conformance: a file a section of the Change Request; facts, request, decision, and `proves!` for each clause.

mod bob;
mod clients_6_6;
mod delivery;
mod ems_8_3_1_5;
mod tlm_8_3_1_2;
mod tsi_8_3_2_1;
