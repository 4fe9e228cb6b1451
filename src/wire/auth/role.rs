//! Three roles and the level that something asks for.
//!
//! In: nothing. Out: [`Role`], ordered so that a stronger one holds the weaker, and [`Level`], which
//! says whether a role is enough. Pure. Called by the tables of both doors.

/// What its holder may do; each role may also do what the ones before it may.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Look: lists, figures, messages.
    ReadOnly,
    /// Work: push, pop, acknowledge, configure.
    ReadWrite,
    /// Rule: delete, maintenance, everything.
    Admin,
}

impl Role {
    /// All roles, the weakest first.
    pub const ALL: [Self; 3] = [Self::ReadOnly, Self::ReadWrite, Self::Admin];

    /// Its name as it stands in settings and claims.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Nothing: whoever asks is answered.
    Public,
    /// At least this role.
    AtLeast(Role),
}

impl Level {
    /// What is asked of a request that no rule knows: it will be refused as unknown, but only those
    /// who work here learn that.
    pub const UNKNOWN: Self = Self::AtLeast(Role::ReadWrite);

    /// Whether a holder of `role` may; `None` is somebody unknown.
    #[must_use]
    pub fn allows(self, role: Option<Role>) -> bool {
        match self {
            Self::Public => true,
            Self::AtLeast(least) => role.is_some_and(|role| role >= least),
        }
    }

    /// Its name: `public`, or that of the role.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::AtLeast(role) => role.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_role_holds_the_weaker_ones() {
        for (at, least) in Role::ALL.into_iter().enumerate() {
            for (rank, role) in Role::ALL.into_iter().enumerate() {
                assert_eq!(Level::AtLeast(least).allows(Some(role)), rank >= at);
            }
            assert!(!Level::AtLeast(least).allows(None));
            assert!(Level::Public.allows(Some(least)));
        }
        assert!(Level::Public.allows(None));
    }

    #[test]
    fn a_role_is_found_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Role::named("root"), None);
    }
}
