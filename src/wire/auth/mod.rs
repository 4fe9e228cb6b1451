//! Who may do what: roles, and what each request needs.
//!
//! [`role`] is the vocabulary: three roles, each holding the one before it, and the level that a
//! route or an opcode asks for. Called by both doors.

pub mod role;
