//! Conformance: a file a section of the Change Request; facts, request, decision, and `proves!` for each clause.

mod alice;
mod bob;
mod c17;
mod clients_6_6;
mod delivery;
mod ems_8_3_1_5;
mod generated;
mod history_8_5;
mod media_5_2_1_4;
mod olm_8_2_1_2;
mod osi_8_2_2_1;
mod sdp_5_2_1_2;
mod tlm_8_3_1_2;
mod tsi_8_3_2_1;
