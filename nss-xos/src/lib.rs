//! The NSS module: users and groups of XOS from the mapped account file.
