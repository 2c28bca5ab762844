//! The node's `xosd` as a test plays it: it answers what the test says, and keeps what was asked.

use serde::Serialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use xos_base::local::{Envelope, Reply};

/// What a test answers.
pub(crate) enum Answer {
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
    /// Nothing, until the caller goes.
    Silence,
}

/// A frame around a text.
pub(crate) fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_le_bytes(), json.as_bytes()].concat()
}

/// Yes.
pub(crate) fn yes<T: Serialize>(answer: T) -> Answer {
    Answer::Bytes(framed(&serde_json::to_string(&Reply::Ok(answer)).unwrap()))
}

/// No.
pub(crate) fn no(error: xos_base::Error) -> Answer {
    Answer::Bytes(framed(&serde_json::to_string(&Reply::<()>::Error(error)).unwrap()))
}

/// Answers at a socket until it is dropped.
pub(crate) struct Xosd {
    path: PathBuf,
    asked: Arc<Mutex<Vec<Envelope<Value>>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Xosd {
    /// Listens at `path`; each call is answered by `answer`, from its name and the call itself.
    pub(crate) fn start(
        path: &Path,
        mut answer: impl FnMut(&str, &Value) -> Answer + Send + 'static,
    ) -> Xosd {
        let listener = UnixListener::bind(path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (keeps, ends) = (Arc::clone(&asked), Arc::clone(&over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream.unwrap(), &keeps, &mut answer);
            }
        });
        Xosd { path: path.to_owned(), asked, over, thread: Some(thread) }
    }

    /// The names of the calls since the last time, and the calls.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().map(|envelope| (envelope.call, envelope.with)).collect()
    }
}

fn serve(
    mut stream: UnixStream,
    keeps: &Mutex<Vec<Envelope<Value>>>,
    answer: &mut impl FnMut(&str, &Value) -> Answer,
) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut body).unwrap();
    let envelope: Envelope<Value> = serde_json::from_slice(&body).unwrap();
    let answer = answer(&envelope.call, &envelope.with);
    keeps.lock().unwrap().push(envelope);
    match answer {
        // The caller may go before it has read all of it.
        Answer::Bytes(bytes) => drop(stream.write_all(&bytes)),
        Answer::Silence => drop(stream.read(&mut [0])),
    }
}

impl Drop for Xosd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(UnixStream::connect(&self.path));
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
        if !thread::panicking() {
            ended.transpose().expect("xosd of the test failed");
        }
    }
}
