//! Leases: a name in a room belongs to the owner of a token.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::protocol::{Name, RoomName};

/// A lease lasts this long after the last renewal: long enough that nobody notices a reload or a restart.
pub const LEASE: Duration = Duration::from_secs(20);

/// Folded name → shown name of everyone in a room.
pub type Names = BTreeMap<String, String>;

/// Someone who owns a name in a room.
#[derive(Clone)]
pub struct Member {
    /// Shown as it was first claimed.
    pub name: Name,
    /// SHA-1 of the token that owns the name, 40 hex digits: the token itself is stored nowhere.
    pub owner: String,
}

/// Members of one room whose leases are renewed.
pub struct Renewal {
    pub room: RoomName,
    pub members: Vec<Arc<Member>>,
}
