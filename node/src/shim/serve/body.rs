//! What an envelope has before it has units; and a shell, which has nothing more, until it is
//! adopted.

use super::super::launch::{LaunchError, Plan, Shell, io_error};
use super::super::{SOCKET_FILE, SPOOL_DIR, spool};
use super::Connection;
use super::init_process::InitProcess;
use crate::cgroup::{CgroupError, EnvelopeCgroup};
use crate::proto::{Ask, Call, Refusal, Tell};
use crate::spec::{Account, Limits};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Cgroup, init, socket.
pub(super) struct Body {
    pub spool: OwnedFd,
    pub init: InitProcess,
    pub listener: UnixListener,
}

/// The end of a shell that became an envelope.
pub(super) struct Adopted {
    pub plan: Plan,
    /// The daemon; the answer for it waits in the outbox.
    pub by: Connection,
}

fn shim(e: CgroupError) -> LaunchError {
    LaunchError::Shim(e.to_string())
}

impl Body {
    /// Makes the cgroup with these limits, and init in it.
    pub(super) fn make(
        cgroup: &EnvelopeCgroup,
        limits: &Limits,
        account: Option<&Account>,
    ) -> Result<Body, LaunchError> {
        cgroup.create(limits).map_err(shim)?;
        let spool = spool::open_dir(Path::new(SPOOL_DIR));
        let spool = spool.map_err(io_error("open the spool folder"))?;
        let init = InitProcess::fork(cgroup, account)?;
        let listener = UnixListener::bind(SOCKET_FILE).map_err(io_error("make the socket"))?;
        listener.set_nonblocking(true).map_err(io_error("make the socket"))?;
        Ok(Body { spool, init, listener })
    }

    /// In a shell: waits to be adopted. `None`: the daemon is gone, or init.
    pub(super) fn wait(
        &mut self,
        shell: &Shell,
        held: UnixStream,
    ) -> Result<Option<Adopted>, LaunchError> {
        held.set_nonblocking(true).map_err(io_error("hear from xosd"))?;
        let mut by = Connection::new(held);
        loop {
            let ask = if by.outbox.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            let mut fds = [PollFd::new(&self.init.fd, PollFlags::IN), PollFd::new(&by.socket, ask)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io_error("wait to be adopted")(e)),
            }
            if !fds[0].revents().is_empty() {
                return Ok(None);
            }
            // What came before the end of the connection counts.
            let open = by.inbox.fill(&mut by.socket).map_err(io_error("hear from xosd"))?;
            while let Some(call) = by.inbox.next::<Call>().map_err(io_error("hear from xosd"))? {
                let id = call.id;
                let tell = match call.ask {
                    Ask::Adopt => Tell::Reply { id, value: serde_json::Value::Null },
                    _ => {
                        let why = "this shell is no envelope yet".to_owned();
                        Tell::Refused { id, refusal: Refusal::Invalid(why) }
                    }
                };
                by.outbox.push(&tell).map_err(io_error("answer xosd"))?;
                if matches!(call.ask, Ask::Adopt) {
                    let plan = self.adopt(shell)?;
                    return Ok(Some(Adopted { plan, by }));
                }
            }
            if !open {
                return Ok(None);
            }
            by.outbox.flush(&mut by.socket).map_err(io_error("answer xosd"))?;
        }
    }

    /// Becomes what the plan says that now lies in the folder.
    fn adopt(&mut self, shell: &Shell) -> Result<Plan, LaunchError> {
        let plan = Plan::read(Path::new("."))?;
        if plan.cgroup != shell.cgroup {
            return Err(LaunchError::Shim("the plan is of another shell".into()));
        }
        plan.cgroup.limit(&plan.spec.limits).map_err(shim)?;
        self.init.adopt(&plan.spec.account)?;
        Ok(plan)
    }
}
