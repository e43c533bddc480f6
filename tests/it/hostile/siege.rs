//! A dyno under attack, with a conversation beside it: what the attack costs those who have no part in it, in time,
//! memory and descriptors. One siege at a time, for it is measured.

use crate::support::{Client, Dyno, PATIENCE, check::Base, eventually, token};
use std::fs;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

/// Each says something twice a second, which everybody may: together every 100 ms.
pub const BYSTANDERS: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Where people begin to notice.
const STALL: Duration = Duration::from_millis(50);
/// Machines that run tests are busy: what is measured is printed, and only what is beyond doubt fails.
const DOUBTLESS: Duration = Duration::from_secs(1);

pub struct Siege {
    pub dyno: Dyno,
    base: Base,
    rss_kb: u64,
    done: Arc<AtomicBool>,
    conversation: Option<JoinHandle<[Delays; 2]>>,
    _turn: MutexGuard<'static, ()>,
}

impl Siege {
    /// Begins the conversation.
    pub async fn begin(vars: &[(&str, &str)]) -> Siege {
        Siege::of(Dyno::start(vars).await).await
    }

    pub async fn of(dyno: Dyno) -> Siege {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let (addr, done) = (dyno.addr(), Arc::new(AtomicBool::new(false)));
        let stop = done.clone();
        let conversation = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(converse(addr, &stop))
        });
        connections(&dyno, BYSTANDERS).await;
        let base = Base::of(&dyno).await;
        // From here on the kernel remembers the most memory that the process had (proc(5), clear_refs).
        fs::write(format!("/proc/{}/clear_refs", dyno.pid()), "5").expect("our own child");
        let rss_kb = dyno.rss_kb();
        Siege {
            dyno,
            base,
            rss_kb,
            done,
            conversation: Some(conversation),
            _turn: turn,
        }
    }

    /// The dyno has got through so many cases: nothing panicked, nobody beside it waited, and within `within` it has
    /// let go of all it took but `growth_kb`.
    pub async fn survived(mut self, what: &str, cases: usize, within: Duration, growth_kb: u64) {
        self.base.is_back(&self.dyno, within, growth_kb).await;
        self.done.store(true, Relaxed);
        let conversation = self.conversation.take().expect("it goes on until here");
        let [talks, control] = conversation
            .join()
            .expect("the conversation goes on beside the attack");
        println!(
            "measured: {what}: {cases} cases; talks beside them: {talks}; the machine itself: {control}; memory: {} kB before, {} at most, {} after",
            self.rss_kb,
            most_kb(&self.dyno),
            self.dyno.rss_kb(),
        );
        let log = self.dyno.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(self.dyno.is_running());
        let slow = DOUBTLESS.max(5 * control.quantile(99));
        assert!(
            talks.quantile(90) < slow,
            "{what}: {talks}, but the machine {control}"
        );
    }
}

/// The most memory that the process had since it was last asked to forget it.
pub fn most_kb(dyno: &Dyno) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", dyno.pid())).expect("our own child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().next());
    kb.and_then(|kb| kb.parse().ok()).expect("a number of kB")
}

/// One after the other says something and waits until it comes back, as long as it takes. Before each talk, a word goes
/// to a thread that only sends it back: so long the machine takes, whatever the dyno does.
async fn converse(addr: SocketAddr, done: &AtomicBool) -> [Delays; 2] {
    let mut people = vec![];
    for n in 0..BYSTANDERS {
        let mut client = Client::connect(addr).await;
        client
            .join("bystanders", &format!("n{n}"), &token(), None)
            .await;
        people.push(client);
    }
    let mut mirror = mirror().await;
    let (mut talks, mut control) = (vec![], vec![]);
    while !done.load(Relaxed) {
        let begin = Instant::now();
        mirror.write_all(b"hello").await.expect("it is there");
        mirror.read_exact(&mut [0; 5]).await.expect("it comes back");
        control.push(begin.elapsed());
        let begin = Instant::now();
        people[talks.len() % BYSTANDERS].say("hello").await;
        talks.push(begin.elapsed());
        sleep(PAUSE).await;
    }
    [talks, control].map(|mut delays| {
        delays.sort_unstable();
        Delays(delays)
    })
}

/// A connection to a thread of its own that sends everything back.
async fn mirror() -> TcpStream {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener
        .local_addr()
        .expect("a bound listener has an address");
    thread::spawn(move || {
        let (mut there, _) = listener.accept().expect("the test connects");
        let mut back = there.try_clone().expect("one socket, two handles");
        std::io::copy(&mut there, &mut back) // until the test is over
    });
    TcpStream::connect(addr).await.expect("the mirror accepts")
}

/// From when something was said until it came back, sorted.
struct Delays(Vec<Duration>);

impl Delays {
    fn quantile(&self, percent: usize) -> Duration {
        self.0
            .get(self.0.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    }
}

impl std::fmt::Display for Delays {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let stalls = self.0.iter().filter(|delay| **delay > STALL).count();
        let (p50, p99) = (self.quantile(50), self.quantile(99));
        let most = self.0.last().copied().unwrap_or_default();
        let n = self.0.len();
        write!(
            f,
            "p50 {p50:.1?}, p99 {p99:.1?}, at most {most:.1?}, {stalls} of {n} over {STALL:?}"
        )
    }
}

/// Processor time that the process has used.
pub fn cpu(dyno: &Dyno) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", dyno.pid())).expect("our own child");
    let (_, fields) = stat.rsplit_once(") ").expect("behind the name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<u32>().expect("a number of ticks");
    (ticks(11) + ticks(12)) * Duration::from_millis(10)
}

/// Waits until so many connections are open, as the dyno itself counts them.
pub async fn connections(dyno: &Dyno, wanted: usize) {
    let head = super::raw::head("GET /healthz", &dyno.host(), &[]);
    eventually("so many connections are open", 5 * PATIENCE, async || {
        let health = super::raw::http(dyno.addr(), &head).await;
        let health: serde_json::Value =
            serde_json::from_slice(&health.body).expect("health in JSON");
        if health["connections"] == wanted {
            Ok(())
        } else {
            Err(health)
        }
    })
    .await;
}
