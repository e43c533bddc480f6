//! A server under load: clients that are connected to it, and measurements while they talk.

use std::time::{Duration, Instant};

use crate::Plan;
use crate::clients::Clients;
use crate::machine::Server;

/// At full speed, messages that a speaker has sent and not received back: the server never waits for the next one.
const AHEAD: u64 = 4;

/// A server, and clients that are connected to it.
pub struct Load {
    pub server: Server,
    pub clients: Clients,
}

/// The measured CPU time, duration and delays for a number of messages.
pub struct Measurement {
    pub deliveries: f64,
    /// CPU time of the server, in µs.
    pub cpu: f64,
    /// From the first message sent to the last one received, in µs.
    pub wall: f64,
    /// Messages in one write, on average.
    pub joined: f64,
    /// From sending to receiving, of each delivery, in µs, sorted.
    pub delays: Vec<f64>,
}

impl Measurement {
    pub fn cpu_per_delivery(&self) -> f64 {
        self.cpu / self.deliveries
    }

    /// The delay in ms that `of_thousand` of 1,000 deliveries do not exceed (500: the median).
    pub fn delay(&self, of_thousand: usize) -> f64 {
        self.delays[(self.delays.len() - 1) * of_thousand / 1000] / 1000.0
    }
}

impl Load {
    pub fn new(plan: &Plan, server: Server, people: usize, room: impl Fn(usize) -> usize) -> Load {
        let mut clients = Clients::join_all(&server, people, room);
        clients.receive_for(plan.time(2.0, 0.1)); // until the lists of members have been read again
        Load { server, clients }
    }

    /// Measures while `talk` makes the clients send messages. It returns the number of deliveries to expect.
    pub fn measure(&mut self, talk: impl FnOnce(&mut Clients) -> u64) -> Measurement {
        let (received, writes) = (self.clients.talks, self.clients.list[0].writes());
        let own = self.clients.list[0].talks;
        let (cpu, start) = (self.server.cpu(), Instant::now());
        let deliveries = talk(&mut self.clients);
        self.clients.receive_until(received + deliveries);
        let wall = start.elapsed();
        let cpu = self.server.cpu() - cpu;
        assert_eq!(self.clients.ended, 0, "no client that reads is closed");
        assert!(!cpu.is_zero(), "deliveries take CPU time");
        let mut delays = self.clients.delays.take().unwrap_or_default();
        delays.sort_by(f64::total_cmp);
        let writes = (self.clients.list[0].writes() - writes).max(1);
        Measurement {
            deliveries: deliveries as f64,
            cpu: cpu.as_secs_f64() * 1e6,
            wall: wall.as_secs_f64() * 1e6,
            joined: (self.clients.list[0].talks - own) as f64 / writes as f64,
            delays,
        }
    }

    /// Sends messages at an even rate: `speaker` is the sender of the nth one, `readers` the number of receivers.
    pub fn at_rate(
        &mut self,
        per_second: u64,
        time: Duration,
        readers: usize,
        speaker: impl Fn(usize) -> usize,
    ) -> Measurement {
        self.clients.delays = Some(vec![]);
        self.measure(|clients| {
            let (start, mut sent) = (Instant::now(), 0);
            while let due = Duration::from_secs(1).mul_f64(sent as f64 / per_second as f64)
                && due < time
            {
                if due <= start.elapsed() {
                    clients.send(speaker(sent), 1);
                    sent += 1;
                }
                clients.poll(due.saturating_sub(start.elapsed()));
            }
            (sent * readers) as u64
        })
    }

    /// The first few clients send as fast as they can, `joined` messages at once.
    pub fn full_speed(&mut self, speakers: usize, joined: usize, time: Duration) -> Measurement {
        self.measure(|clients| {
            let (start, before, mut sent) = (Instant::now(), clients.list[0].talks, 0);
            let ahead = (speakers as u64 * AHEAD).max(2 * joined as u64);
            while start.elapsed() < time {
                while sent - (clients.list[0].talks - before) + joined as u64 <= ahead {
                    clients.send(sent as usize / joined % speakers, joined);
                    sent += joined as u64;
                }
                clients.poll(Duration::from_millis(10));
            }
            sent * clients.list.len() as u64
        })
    }
}
