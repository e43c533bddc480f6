//! An abuse test: a dyno under attack while bystanders talk to each other. It measures what the attack costs the
//! bystanders in time, and the dyno in memory and descriptors.

use crate::support::check::{Base, becomes};
use crate::support::prelude::*;
use futures_util::{StreamExt, future::ready, stream};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::net::{self, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime;

/// Clients that talk in turn, so each of them stays below the rate limit of two messages a second.
pub const BYSTANDERS: usize = 25;
/// Pause between two messages of the bystanders.
const PAUSE: Duration = Duration::from_millis(20);
/// Messages of bystanders that must fall into an attack: with fewer, their delays prove nothing.
const MIN_TALKS: usize = 30;
/// A longer delay fails the test, also on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(1);
/// Attackers that run at a time.
const AT_ONCE: usize = 16;

pub struct AbuseTest {
    pub dyno: Dyno,
    base: Base,
    rss_kb: u64,
    shared: Arc<Shared>,
    bystanders: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Of each message of a bystander since the attack began, and of the control before it.
    delays: Mutex<Vec<[Duration; 2]>>,
    done: AtomicBool,
}

/// Runs an attack on a dyno of its own: at least this many cases, some at a time, until the bystanders can be judged.
pub async fn attack(what: &str, cases: usize, growth_kb: u64, case: impl AsyncFn(&Dyno, usize)) {
    let turn = heavy(2).await;
    let test = AbuseTest::start(&[]).await;
    let cases = test.run_cases(cases, case).await;
    drop(turn); // the rest is waiting
    test.finish(what, cases, PATIENCE, growth_kb).await;
}

impl AbuseTest {
    pub async fn start(vars: &[(&str, &str)]) -> AbuseTest {
        AbuseTest::start_on(Dyno::start(vars).await).await
    }

    /// Starts the bystanders and takes the measurements that the attack is compared with.
    pub async fn start_on(dyno: Dyno) -> AbuseTest {
        let (addr, shared) = (dyno.addr(), Arc::<Shared>::default());
        let theirs = shared.clone();
        let bystanders = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(talk(addr, &theirs))
        });
        dyno.health_becomes("connections", BYSTANDERS).await;
        let base = Base::of(&dyno).await;
        // From now on the kernel records the peak of the resident memory (proc(5), clear_refs).
        fs::write(format!("/proc/{}/clear_refs", dyno.pid()), "5").expect("our own child");
        shared.delays.lock().unwrap().clear();
        AbuseTest {
            rss_kb: dyno.rss_kb(),
            dyno,
            base,
            shared,
            bystanders,
        }
    }

    /// Messages of bystanders since the attack began.
    fn talks(&self) -> usize {
        self.shared.delays.lock().unwrap().len()
    }

    /// Waits during an attack that only holds something, until the bystanders can be judged.
    pub async fn bystanders_have_talked(&self) {
        let enough = async || self.talks() >= MIN_TALKS;
        becomes("the bystanders talk", 3 * PATIENCE, true, enough).await;
    }

    /// Runs at least this many cases of an attack, and more until the bystanders can be judged. Gives their number.
    pub async fn run_cases(&self, cases: usize, case: impl AsyncFn(&Dyno, usize)) -> usize {
        stream::iter(0..)
            .take_while(|n| ready(*n < cases || self.talks() < MIN_TALKS))
            .map(|n| case(&self.dyno, n))
            .buffer_unordered(AT_ONCE)
            .count()
            .await
    }

    /// Checks after an attack that nothing panicked, that no bystander had to wait, and that within `within` the dyno
    /// has freed its descriptors and all memory but `growth_kb`.
    pub async fn finish(mut self, what: &str, cases: usize, within: Duration, growth_kb: u64) {
        // Later messages would hide a delay. One message may be under way at this moment, and counts.
        let n = self.talks() + 1;
        self.base.is_back(&self.dyno, within, growth_kb).await;
        self.shared.done.store(true, Relaxed);
        self.bystanders.join().expect("they talk until the end");
        let delays = self.shared.delays.lock().unwrap();
        let delays = &delays[..n.min(delays.len())];
        let n = delays.len();
        assert!(n >= MIN_TALKS, "{what}: only {n} messages of bystanders");
        let [talks, control] = [0, 1].map(|of| {
            let mut sorted: Vec<Duration> = delays.iter().map(|pair| pair[of]).collect();
            sorted.sort_unstable();
            sorted
        });
        // The median, the 90th and the 99th percentile, and the longest.
        let summary = |sorted: &[Duration]| {
            [50, 90, 99, 100].map(|percent| sorted[(n * percent / 100).min(n - 1)])
        };
        let (waited, of_control) = (summary(&talks), summary(&control));
        println!(
            "measured: {what}: {cases} cases; {n} messages of bystanders: {waited:.1?}; control: {of_control:.1?}; \
             memory: {} kB before, {} at most, {} after",
            self.rss_kb,
            self.dyno.peak_kb(),
            self.dyno.rss_kb(),
        );
        let log = self.dyno.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(self.dyno.is_running());
        let limit = TOO_LONG.max(5 * of_control[2]);
        let most = waited[1];
        assert!(most < limit, "{what}: {waited:?}; control: {of_control:?}");
        // Few messages fall into a long stall, so it hardly moves a quantile: its share of the time counts, too.
        let stalled: Duration = talks.iter().filter(|delay| **delay > limit).sum();
        let time = talks.iter().sum::<Duration>() + PAUSE * n as u32;
        let few_stalls = stalled < time / 2;
        assert!(few_stalls, "{what}: stalled {stalled:?} of {time:?}");
    }
}

/// The bystanders: one after the other sends a message and waits for its echo. The control comes before each message: a
/// round trip to a thread that echoes bytes, which takes as long as the machine makes it, whatever the dyno does.
async fn talk(addr: SocketAddr, shared: &Shared) {
    let mut people = vec![];
    for n in 0..BYSTANDERS {
        let mut client = Client::connect(addr).await;
        let user = format!("n{n}");
        client.join("bystanders", &user, &token(), None).await;
        people.push(client);
    }
    let mut echo = echo_server().await;
    for n in (0..BYSTANDERS).cycle() {
        let begin = Instant::now();
        echo.write_all(b"hello").await.expect("it is there");
        echo.read_exact(&mut [0; 5]).await.expect("it comes back");
        let (control, begin) = (begin.elapsed(), Instant::now());
        people[n].say("hello").await;
        let delays = [begin.elapsed(), control];
        shared.delays.lock().unwrap().push(delays);
        sleep(PAUSE).await;
        if shared.done.load(Relaxed) {
            return;
        }
    }
}

/// A connection to a thread that sends everything back.
async fn echo_server() -> TcpStream {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("a bound listener");
    thread::spawn(move || {
        let (mut read, _) = listener.accept().expect("the test connects");
        let mut write = read.try_clone().expect("one socket, two handles");
        std::io::copy(&mut read, &mut write) // until the test is over
    });
    TcpStream::connect(addr).await.expect("the echo server")
}

/// Processor time that the process has used.
pub fn cpu(dyno: &Dyno) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(dyno.pid() as i32));
    let time = clock_gettime(clock.expect("our own child"));
    time.expect("its clock can be read").into()
}
