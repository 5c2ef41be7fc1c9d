//! Who is who: volumes, nodes, segments, computes.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, random identity.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

uuid_type! {
    /// One database cluster's storage.
    VolumeId
}
uuid_type! {
    /// One node's replica of one protection group. Drawn when a node's directory is formatted, so
    /// that a directory that was lost can never answer under its old name.
    SegmentId
}
uuid_type! {
    /// One compute directory (PGDATA). Stays the same over restarts of the server.
    ComputeId
}
name_type! {
    /// A storage server, such as `az1-1`.
    NodeName
}
name_type! {
    /// An availability zone, such as `az1`.
    AzName
}

/// The part of a volume that six segments replicate. A volume has one, number 0, so far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProtectionGroup(pub u32);

/// Who holds, or asks for, a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    pub compute: ComputeId,
    /// What a person needs to find it: host, data directory, port.
    pub description: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (compute {})", self.description, self.compute)
    }
}

/// One member of a protection group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentMember {
    pub segment: SegmentId,
    pub node: NodeName,
    pub az: AzName,
    /// `host:port` of the node's gRPC endpoint.
    pub address: String,
}

/// The segments of a protection group. The version rises with every change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    pub version: u64,
    pub members: Vec<SegmentMember>,
}

impl Membership {
    pub fn member(&self, segment: SegmentId) -> Option<&SegmentMember> {
        self.members.iter().find(|member| member.segment == segment)
    }
}
