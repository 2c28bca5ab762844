//! One machine of a site: accounts, envelopes, shims, mounts.
