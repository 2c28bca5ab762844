//! The terminal of a ghost: passed through while the tree has one too, and put back as it was.

use super::proto::Size;
use rustix::termios::{OptionalActions, Termios, Winsize};
use std::io;
use std::os::fd::AsFd;

/// A terminal that this process changes.
pub(super) struct Terminal<T: AsFd> {
    fd: T,
    /// How it was, while it is passed through.
    before: Option<Termios>,
}

impl<T: AsFd> Terminal<T> {
    /// `None` when the descriptor is no terminal.
    pub(super) fn of(fd: T) -> Option<Terminal<T>> {
        rustix::termios::isatty(&fd).then_some(Terminal { fd, before: None })
    }

    /// Every key goes to the tree as it is. From the background this stops the process, as it does
    /// any.
    ///
    /// # Errors
    /// The terminal's error.
    pub(super) fn pass_through(&mut self) -> io::Result<()> {
        if self.before.is_some() {
            return Ok(());
        }
        let before = rustix::termios::tcgetattr(&self.fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, &raw)?;
        self.before = Some(before);
        Ok(())
    }

    /// As it was before. One that hung up is nobody's any more.
    pub(super) fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            let back = rustix::termios::tcsetattr(&self.fd, OptionalActions::Drain, &before);
            debug_assert!(!matches!(back, Err(rustix::io::Errno::INVAL)), "{back:?}");
        }
    }

    /// Its size.
    ///
    /// # Errors
    /// The terminal's error.
    pub(super) fn size(&self) -> io::Result<Size> {
        let w = rustix::termios::tcgetwinsize(&self.fd)?;
        let (width_px, height_px) = (w.ws_xpixel, w.ws_ypixel);
        Ok(Size { rows: w.ws_row, columns: w.ws_col, width_px, height_px })
    }
}

impl<T: AsFd> Drop for Terminal<T> {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Gives a terminal a size; its foreground processes are told by the kernel.
///
/// # Errors
/// The terminal's error.
pub(super) fn resize(fd: impl AsFd, size: Size) -> io::Result<()> {
    let (ws_xpixel, ws_ypixel) = (size.width_px, size.height_px);
    let w = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel, ws_ypixel };
    rustix::termios::tcsetwinsize(fd, w).map_err(io::Error::from)
}
