//! The xos tool and the xosd daemon.
