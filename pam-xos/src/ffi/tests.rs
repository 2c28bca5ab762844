//! The entries under a real handle of libpam, made here as a host makes one.

use super::conversation::{Response, Responses};
use super::*;
use libc::c_void;
use std::ffi::CString;
use std::ptr;

/// `PAM_RHOST` and `PAM_CONV`.
const ITEMS: (c_int, c_int) = (4, 5);

type Converse =
    unsafe extern "C" fn(c_int, *mut *const Asked, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Asked {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Conversation {
    converse: Option<Converse>,
    host: *mut c_void,
}

unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        pamh: *mut *mut RawHandle,
    ) -> c_int;
    fn pam_set_item(pamh: *mut RawHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_end(pamh: *mut RawHandle, status: c_int) -> c_int;
}

/// What a host hears, and what it answers.
#[derive(Default)]
struct Host {
    heard: Vec<(c_int, String)>,
    answer: Option<CString>,
}

unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Asked,
    responses: *mut *mut Response,
    host: *mut c_void,
) -> c_int {
    assert_eq!(count, 1);
    unsafe {
        let (host, asked) = (&mut *host.cast::<Host>(), &**messages);
        let text = CStr::from_ptr(asked.text).to_str().unwrap().to_owned();
        host.heard.push((asked.style, text));
        let Some(answer) = &host.answer else { return Code::ConvErr.number() };
        *responses = response(Some(answer.as_c_str()));
    }
    Code::Success.number()
}

/// As a conversation gives one: from `malloc`.
unsafe fn response(text: Option<&CStr>) -> *mut Response {
    unsafe {
        let one = libc::malloc(size_of::<Response>()).cast::<Response>();
        let text = text.map_or(ptr::null_mut(), |text| libc::strdup(text.as_ptr()));
        one.write(Response { text, code: 0 });
        one
    }
}

/// Runs with a handle for this user, and gives what the host heard.
fn with_handle(user: &CStr, answer: Option<&CStr>, act: impl FnOnce(*mut RawHandle)) -> Host {
    let mut host = Host { answer: answer.map(CStr::to_owned), ..Host::default() };
    let conversation =
        Conversation { converse: Some(converse), host: ptr::from_mut(&mut host).cast() };
    let mut pamh = ptr::null_mut();
    unsafe {
        let service = c"xos-test".as_ptr();
        assert_eq!(pam_start(service, user.as_ptr(), &conversation, &mut pamh), 0);
        act(pamh);
        pam_end(pamh, 0);
    }
    host
}

const ENTRIES: [unsafe extern "C" fn(*mut RawHandle, c_int, c_int, *const *const c_char) -> c_int;
    6] = [
    pam_sm_authenticate,
    pam_sm_setcred,
    pam_sm_acct_mgmt,
    pam_sm_open_session,
    pam_sm_close_session,
    pam_sm_chauthtok,
];

/// If it failed, root or a local user could not sign in on a node, and a strange name could crash
/// sshd.
#[test]
fn everybody_else_is_ignored_by_each_entry() {
    let long = CString::new("a".repeat(256)).unwrap();
    let longer = CString::new("a".repeat(100_000)).unwrap();
    let names: [&CStr; 12] = [
        c"root",
        c"nobody",
        c"",
        c"nobody.at.all",
        c"root\n",
        c"alice:demo",
        c"../alice",
        c"\xff\xfe",
        c"\xd0\xb0lice.demo",
        c"%s%n",
        &long,
        &longer,
    ];
    for name in names {
        // Where nobody listens: were anybody asked, the answer would be another one.
        let words = [c"socket=/nonexistent/s".as_ptr(), c"seen=/nonexistent".as_ptr()];
        let host = with_handle(name, None, |pamh| {
            for entry in ENTRIES {
                let code = unsafe { entry(pamh, 0, 2, words.as_ptr()) };
                assert_eq!(code, Code::Ignore.number(), "{name:?}");
            }
        });
        // libpam asks for a name when the host gave an empty one; nothing else is said.
        assert!(name.is_empty() || host.heard.is_empty(), "{name:?}: {:?}", host.heard);
    }
}

/// If it failed, a broken host would crash instead of failing.
#[test]
fn what_is_not_there_is_not_followed() {
    for entry in ENTRIES {
        assert_eq!(unsafe { entry(ptr::null_mut(), 0, 0, ptr::null()) }, Code::SystemErr.number());
    }
    let holes = [ptr::null(), c"debug".as_ptr(), ptr::null()];
    unsafe {
        assert_eq!(words(3, holes.as_ptr()), [c"debug"]);
        assert!(words(-1, holes.as_ptr()).is_empty() && words(3, ptr::null()).is_empty());
    }
}

/// If it failed, a fault of ours would end sshd or login.
#[test]
fn a_panic_is_contained() {
    assert_eq!(contained(|| panic!("a fault that this test makes")), None);
    assert_eq!(contained(|| Code::Success), Some(Code::Success));
}

/// If it failed, the person would not be asked, or what they typed would be lost.
#[test]
fn the_conversation_tells_and_asks() {
    let host = with_handle(c"root", Some(c"se\xc3\xa9same"), |pamh| {
        let pam = unsafe { Handle::new(pamh) }.unwrap();
        pam.say(Style::Info, "a\0b").unwrap();
        pam.say(Style::Error, "no").unwrap();
        assert_eq!(pam.ask("Password:", false).unwrap(), "se\u{e9}same");
        assert_eq!(pam.ask("Name:", true).unwrap(), "se\u{e9}same");
    });
    let heard: Vec<(c_int, &str)> = host.heard.iter().map(|(s, t)| (*s, t.as_str())).collect();
    assert_eq!(heard, [(4, "a\u{fffd}b"), (3, "no"), (1, "Password:"), (2, "Name:")]);

    with_handle(c"root", Some(c"\xff"), |pamh| {
        let pam = unsafe { Handle::new(pamh) }.unwrap();
        assert_eq!(pam.ask("?", true), Err(Mute::NoText));
    });
    with_handle(c"root", None, |pamh| {
        let pam = unsafe { Handle::new(pamh) }.unwrap();
        assert_eq!(pam.ask("?", true), Err(Mute::Failed(Code::ConvErr.number())));
        // As cron does: a conversation without a function.
        let none = Conversation { converse: None, host: ptr::null_mut() };
        unsafe { pam_set_item(pamh, ITEMS.1, ptr::from_ref(&none).cast()) };
        assert_eq!(pam.say(Style::Info, "x"), Err(Mute::None));
    });
    unsafe {
        assert_eq!(Responses(ptr::null_mut()).text(), Err(Mute::Nothing));
        assert_eq!(Responses(response(None)).text(), Err(Mute::Nothing));
    }
}

/// If it failed, the node would hear from where somebody comes wrongly, or a session would lack
/// variables; and a variable without a name could remove another.
#[test]
fn items_and_variables_come_through() {
    with_handle(c"root", None, |pamh| {
        let pam = unsafe { Handle::new(pamh) }.unwrap();
        assert_eq!(pam.user().as_deref(), Some("root"));
        assert_eq!(pam.item(Item::Service).as_deref(), Some("xos-test"));
        assert_eq!(pam.item(Item::Rhost), None);
        for (given, found) in [(c"h.example", Some("h.example")), (c"", None)] {
            unsafe { pam_set_item(pamh, ITEMS.0, given.as_ptr().cast()) };
            assert_eq!(pam.item(Item::Rhost).as_deref(), found);
        }
        assert_eq!(pam.env(c"XOS_VO"), None);
        pam.put_env("XOS_VO", "demo.rennes=x").unwrap();
        for (name, value) in [("", "x"), ("XOS_VO=", "x"), ("A=B", ""), ("A", "\0"), ("A\0", "")] {
            assert!(pam.put_env(name, value).is_err(), "{name:?}");
        }
        assert_eq!(pam.env(c"XOS_VO").as_deref(), Some("demo.rennes=x"));
        assert_eq!(pam.env(c"A"), None);
    });
}

/// If it failed, grid accounts would be taken for local ones, which nobody checks.
#[test]
fn libc_says_whose_uid_a_name_has() {
    assert_eq!(uid_of("root").unwrap(), Some(0));
    assert_eq!(uid_of("nobody.at.all").unwrap(), None);
}

/// If it failed, the node would take a stranger who runs `su` for root or for the account's own
/// user, and count their attempts as another's.
#[test]
fn who_runs_a_set_user_id_program_is_told() {
    let euid = unsafe { libc::geteuid() };
    if euid != 0 {
        println!("skipped: needs root to be somebody else for a moment");
        return;
    }
    let other = std::thread::spawn(|| {
        let (keep, ruid): (libc::c_long, libc::c_long) = (-1, 1_900_000_123);
        // Of this thread alone, which ends here.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, ruid, keep, keep) };
        (done, real_uid(), unsafe { libc::geteuid() })
    });
    assert_eq!(other.join().unwrap(), (0, 1_900_000_123, 0));
}
