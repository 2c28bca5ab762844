//! Application execution management: jobs, units, JSDL, choice of resources, journal.
