//! The virtual machine of the tests: it boots, runs commands, reports failures and ends with its
//! owner.

use e2e::{EVENT_TIMEOUT, Guest};

#[test]
fn in_a_guest_commands_run_until_its_owner_drops_it() {
    let guest = Guest::builder().program("setpriv").file("/greeting", "hello\n").boot();

    assert_eq!(guest.run("cat /greeting; echo to both >&2"), "hello\nto both");
    assert_eq!(guest.try_run("false; (exit 3)").code, 3);
    assert!(guest.run("setpriv --version").contains("util-linux"), "busybox hides the program");
    guest.send("(usleep 100000; echo late) &");
    guest.wait_for_line("late", EVENT_TIMEOUT);

    let process = format!("/proc/{}", guest.id());
    drop(guest);
    assert!(!std::fs::exists(&process).expect("/proc can be read"));
}

#[test]
#[should_panic(expected = "cannot be mounted")]
fn in_a_guest_a_failure_of_the_setup_is_reported() {
    let _guest = Guest::builder().setup("echo it cannot be mounted; false").boot();
}
