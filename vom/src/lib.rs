//! Virtual organizations: life cycle, members, groups, roles, policies, shares.
