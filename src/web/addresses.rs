//! Counts the WebSockets of each address, so that one visitor cannot take all of a dyno.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;

use super::request::Request;
use crate::lock::lock;
use crate::log_throttle::LogThrottle;

/// The part of an IPv6 address that counts: a household or a rented server has a /64 of its own.
const V6_MASK: u128 = u128::MAX << 64;

/// The address of a visitor. A router, or a proxy on this machine, adds it to `X-Forwarded-For` as the last item.
/// From any other peer this header is the visitor's own claim, so the peer's address counts.
pub fn of(request: &Request, peer: IpAddr, behind_router: bool) -> IpAddr {
    let peer = peer.to_canonical();
    let trusted = behind_router || peer.is_loopback();
    let forwarded = trusted.then(|| request.last("x-forwarded-for")).flatten();
    match forwarded.and_then(parse).unwrap_or(peer) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & V6_MASK).into(),
        v4 => v4,
    }
}

/// An address; some proxies add its port.
fn parse(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|addr: SocketAddr| addr.ip());
    let address = text.parse().or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

pub struct Addresses {
    /// WebSockets that one address may have; 0 is no limit.
    max: u32,
    /// Only addresses with open WebSockets.
    counts: Mutex<HashMap<IpAddr, u32>>,
    refused: LogThrottle,
}

/// One counted WebSocket. Dropping it counts it off.
pub struct Place<'a> {
    addresses: &'a Addresses,
    address: IpAddr,
}

impl Addresses {
    pub fn new(max: u32) -> Addresses {
        let (counts, refused) = Default::default();
        Addresses {
            max,
            counts,
            refused,
        }
    }

    /// Counts a WebSocket. `None`: this address has as many as it may.
    pub fn enter(&self, address: IpAddr) -> Option<Place<'_>> {
        let addresses = self;
        if self.max > 0 {
            let mut counts = lock(&self.counts);
            let count = counts.entry(address).or_default();
            if *count >= self.max {
                let due = self.refused.is_due();
                drop(counts);
                if due {
                    let setting = format!("MAX_PER_ADDRESS={}", self.max);
                    log::warn!("websocket=refused address={address} setting={setting:?}");
                }
                return None;
            }
            *count += 1;
        }
        Some(Place { addresses, address })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = lock(&self.addresses.counts);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_open_websockets_are_kept() {
        let addresses = Addresses::new(2);
        let address = |n| IpAddr::from([192, 0, 2, n]);
        let kept = || lock(&addresses.counts).len();
        let places: Vec<_> = (0..9).map(|n| addresses.enter(address(n))).collect();
        let second = addresses.enter(address(0));
        assert!(second.is_some() && addresses.enter(address(0)).is_none());
        assert_eq!(kept(), 9);
        drop(places);
        assert_eq!(kept(), 1);
        drop(second);
        assert_eq!(kept(), 0);
    }
}
