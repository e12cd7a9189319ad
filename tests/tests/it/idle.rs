//! An agent with nothing to do sleeps: on a login node with little to do, too.

use std::fs;

use nix::libc;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::images;
use sifter_tests::skip;
use sifter_tests::wait;

/// Whether a thread waits for something to happen and for no time to pass, by `/proc/PID/task/TID/syscall`: the
/// call's number and its arguments.
fn waits_for_ever(call: &str) -> bool {
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|number| number.parse().ok());
    let arguments: Vec<u64> = words
        .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    // The lower half of a number that is an `int`.
    let is_none = |index: usize| {
        let argument = arguments.get(index).copied();
        argument.is_some_and(|argument| argument as u32 == u32::MAX)
    };
    match number {
        Some(libc::SYS_futex) => arguments.get(3) == Some(&0),
        Some(libc::SYS_ppoll) => arguments.get(2) == Some(&0),
        Some(libc::SYS_epoll_pwait) => is_none(3),
        // Newer architectures have only those above.
        #[cfg(target_arch = "x86_64")]
        Some(libc::SYS_poll) => is_none(2),
        #[cfg(target_arch = "x86_64")]
        Some(libc::SYS_epoll_wait) => is_none(3),
        _ => false,
    }
}

#[test]
fn an_agent_without_work_waits_for_nothing_but_the_next_scan() {
    let agent = Agent::ready(Options::roots([images::dir()]));
    let id = agent.process.id();
    let tasks = format!("/proc/{id}/task");
    // Of threads that end meanwhile nothing is told, either; the first one is there.
    if let Err(error) = fs::read_to_string(format!("{tasks}/{id}/syscall")) {
        let why = format!("the kernel does not tell what threads wait for: {error}");
        return skip(
            "an_agent_without_work_waits_for_nothing_but_the_next_scan",
            &why,
        );
    }
    wait::until("an agent that sleeps", || {
        let awake: Vec<String> = fs::read_dir(&tasks)
            .unwrap()
            .filter_map(|task| {
                let task = task.unwrap().path();
                let name = fs::read_to_string(task.join("comm")).ok()?;
                let call = fs::read_to_string(task.join("syscall")).ok()?;
                let is_idle = waits_for_ever(&call) || name.trim() == "sifter-root";
                (!is_idle).then(|| format!("{} {}", name.trim(), call.trim()))
            })
            .collect();
        if awake.is_empty() { Ok(()) } else { Err(awake) }
    });
}
