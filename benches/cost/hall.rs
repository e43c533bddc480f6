//! A server with a crowd at it, and what a stretch of talk takes there.

use std::time::{Duration, Instant};

use crate::Plan;
use crate::crowd::Crowd;
use crate::machine::Server;

/// Messages under way for each who speaks at full speed: the next one is there when the last is done.
const AHEAD: u64 = 4;

/// A server with a crowd at it.
pub struct Hall {
    pub server: Server,
    pub crowd: Crowd,
}

/// What a stretch of talk took.
pub struct Stretch {
    pub deliveries: f64,
    /// Of the server, in µs.
    pub cpu: f64,
    /// From the first word until the last was heard, in µs.
    pub wall: f64,
    /// Messages in one write, on average.
    pub joined: f64,
    /// Per delivery, in µs, sorted.
    pub delays: Vec<f64>,
}

impl Stretch {
    pub fn cpu_per_delivery(&self) -> f64 {
        self.cpu / self.deliveries
    }

    /// In ms.
    pub fn delay(&self, of_thousand: usize) -> f64 {
        self.delays[(self.delays.len() - 1) * of_thousand / 1000] / 1000.0
    }
}

impl Hall {
    pub fn new(plan: &Plan, server: Server, people: usize, room: impl Fn(usize) -> usize) -> Hall {
        let mut crowd = Crowd::at(&server, people, room);
        crowd.sit(plan.time(2.0, 0.1)); // until lists of members have been read once more
        Hall { server, crowd }
    }

    /// Measures what `talk` has the crowd say: it returns how many deliveries that will be.
    pub fn measure(&mut self, talk: impl FnOnce(&mut Crowd) -> u64) -> Stretch {
        let (heard, writes) = (self.crowd.talks, self.crowd.members[0].writes());
        let own = self.crowd.members[0].talks;
        let (cpu, start) = (self.server.cpu(), Instant::now());
        let deliveries = talk(&mut self.crowd);
        self.crowd.hear(heard + deliveries);
        let wall = start.elapsed();
        let cpu = self.server.cpu() - cpu;
        assert_eq!(self.crowd.ended, 0, "nobody who reads is put out");
        assert!(!cpu.is_zero(), "nothing is for nothing");
        let mut delays = self.crowd.delays.take().unwrap_or_default();
        delays.sort_by(f64::total_cmp);
        let writes = (self.crowd.members[0].writes() - writes).max(1);
        Stretch {
            deliveries: deliveries as f64,
            cpu: cpu.as_secs_f64() * 1e6,
            wall: wall.as_secs_f64() * 1e6,
            joined: (self.crowd.members[0].talks - own) as f64 / writes as f64,
            delays,
        }
    }

    /// Someone says something at an even pace; `speaker` says who, `readers` how many hear it.
    pub fn pace(
        &mut self,
        per_second: u64,
        lasting: Duration,
        readers: usize,
        speaker: impl Fn(usize) -> usize,
    ) -> Stretch {
        self.crowd.delays = Some(vec![]);
        self.measure(|crowd| {
            let (start, mut said) = (Instant::now(), 0);
            while let due = Duration::from_secs(1).mul_f64(said as f64 / per_second as f64)
                && due < lasting
            {
                if due <= start.elapsed() {
                    crowd.say(speaker(said), 1);
                    said += 1;
                }
                crowd.turn(due.saturating_sub(start.elapsed()));
            }
            (said * readers) as u64
        })
    }

    /// The first few talk as fast as they can, `joined` messages at once.
    pub fn rush(&mut self, speakers: usize, joined: usize, lasting: Duration) -> Stretch {
        self.measure(|crowd| {
            let (start, before, mut said) = (Instant::now(), crowd.members[0].talks, 0);
            let ahead = (speakers as u64 * AHEAD).max(2 * joined as u64);
            while start.elapsed() < lasting {
                while said - (crowd.members[0].talks - before) + joined as u64 <= ahead {
                    crowd.say(said as usize / joined % speakers, joined);
                    said += joined as u64;
                }
                crowd.turn(Duration::from_millis(10));
            }
            said * crowd.members.len() as u64
        })
    }
}
