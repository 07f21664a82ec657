//! Open HTTP connections, capped in total and per address. At a cap a new connection replaces one that is idle or has
//! shown no credential, so a client that opens many only displaces itself.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Extensions;
use tokio_util::sync::CancellationToken;

use super::memory::RequestMemory;
use crate::id::AccountRowId;
use crate::metrics::{Expose, Exposition};
use crate::rate_limit::address_network;

/// Bodies of anonymous requests read at the same time per client address.
const ANONYMOUS_BODIES: usize = 32;
/// The same for all clients that one untrusted proxy claims to forward for.
const CLAIMED_BODIES: usize = 4 * ANONYMOUS_BODIES;

#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimits {
    /// In total.
    pub(crate) connections: usize,
    /// Per address.
    pub(crate) of_address: usize,
    /// Trusted proxies, whose connections are not counted by their own address.
    pub(crate) proxies: Vec<ipnet::IpNet>,
}

/// The open connections of all listeners of one kind.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    table: Mutex<Table>,
    bodies: Mutex<Bodies>,
    refused: AtomicU64,
    displaced: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Connection>,
    /// Ids of the open connections per address, oldest first.
    by_address: HashMap<Group, BTreeSet<u64>>,
}

/// Group in which a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Group {
    Address(IpAddr),
    /// A proxy, which carries connections of many clients.
    Proxy(IpAddr),
}

/// A handle to a connection; clones refer to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<OpenConnection>);

#[derive(Debug)]
struct OpenConnection {
    /// A request on it showed a valid credential.
    authenticated: AtomicBool,
    /// A request arrived on it.
    requested: AtomicBool,
    /// Requests whose responses are not finished.
    in_progress: AtomicUsize,
    closing: CancellationToken,
}

/// Priority of a connection when room has to be made; the lowest is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    /// Anonymous, idle after at least one request.
    AnonymousIdle,
    /// Anonymous.
    Anonymous,
    /// Authenticated, idle.
    AuthenticatedIdle,
    /// Authenticated, with a request in progress.
    Busy,
}

/// A connection's entry in the table; removed on drop.
pub(crate) struct ConnectionSlot {
    connections: Arc<Connections>,
    group: Group,
    number: u64,
    pub(crate) connection: Connection,
}

/// Marks a request as in progress until dropped.
pub(crate) struct RequestGuard(Connection);

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
            bodies: Mutex::default(),
            refused: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
        }
    }

    /// Admits a new connection, in place of another if needed; `None` if every connection of its address has an
    /// authenticated request in progress.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let peer = peer.to_canonical();
        let is_proxy = self.limits.proxies.iter().any(|network| network.contains(&peer));
        let group = if is_proxy { Group::Proxy(peer) } else { Group::Address(address_network(peer)) };
        let mut table = self.table();
        let of_group = table.by_address.get(&group).map_or(0, BTreeSet::len);
        if !is_proxy
            && of_group >= self.limits.of_address
            && !self.displace(&mut table, group, Priority::AuthenticatedIdle)
        {
            drop(table);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if table.open.len() >= self.limits.connections {
            self.make_room(&mut table);
        }
        let number = table.next;
        table.next += 1;
        let connection = Connection(Arc::new(OpenConnection {
            authenticated: AtomicBool::new(false),
            requested: AtomicBool::new(false),
            in_progress: AtomicUsize::new(0),
            closing: CancellationToken::new(),
        }));
        table.open.insert(number, connection.clone());
        table.by_address.entry(group).or_default().insert(number);
        Some(ConnectionSlot { connections: Arc::clone(self), group, number, connection })
    }

    /// Closes a connection of the address with the most connections.
    fn make_room(&self, table: &mut Table) {
        for priority in [Priority::AuthenticatedIdle, Priority::Busy] {
            let mut groups: Vec<(bool, usize, Group)> = table
                .by_address
                .iter()
                .map(|(group, numbers)| (matches!(group, Group::Address(_)), numbers.len(), *group))
                .collect();
            groups.sort_unstable_by_key(|(own, count, _)| std::cmp::Reverse((*own, *count)));
            if groups.into_iter().any(|(_, _, group)| self.displace(table, group, priority)) {
                return;
            }
        }
    }

    /// Closes the lowest-priority connection of a group, the oldest of several, unless its priority is above `most`.
    fn displace(&self, table: &mut Table, group: Group, most: Priority) -> bool {
        let numbers = table.by_address.get(&group).into_iter().flatten();
        let priority = |number: &u64| table.open.get(number).map(|one| (one.priority(), *number));
        let Some((_, number)) = numbers.filter_map(priority).min().filter(|(priority, _)| *priority <= most) else {
            return false;
        };
        if let Some(connection) = table.remove(group, number) {
            connection.0.closing.cancel();
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits the body of an anonymous request. Beyond the cap of its client and claim the oldest of them gives way;
    /// beyond the cap of all claims of the address, one of the claim with the most.
    pub(crate) fn read_anonymous(&self, client: IpAddr, claimed: Option<IpAddr>) -> BodyPermit<'_> {
        let (client, claimed) = (address_network(client), claimed.map(address_network));
        let mut bodies = self.bodies();
        let number = bodies.next;
        bodies.next += 1;
        let cut_off = CancellationToken::new();
        let reading = bodies.reading.entry(client).or_default();
        if let Some(oldest) = displaced_body(reading, claimed).and_then(|at| reading.remove(at)) {
            oldest.cut_off.cancel();
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        reading.push_back(Reading { number, claimed, cut_off: cut_off.clone() });
        BodyPermit { connections: self, client, number, cut_off }
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expose for Connections {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let open = self.table().open.len();
        let (refused, displaced) = (self.refused.load(Ordering::Relaxed), self.displaced.load(Ordering::Relaxed));
        exposition.gauge("mailkite_http_connections", "HTTP connections that are open.", open)?;
        let help = "HTTP connections refused by the cap of their address.";
        exposition.counter("mailkite_http_connections_refused_total", help, refused)?;
        let help = "HTTP connections and bodies given up for newer ones at a cap.";
        exposition.counter("mailkite_http_displaced_total", help, displaced)
    }
}

impl Table {
    fn remove(&mut self, group: Group, number: u64) -> Option<Connection> {
        if let Some(numbers) = self.by_address.get_mut(&group) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&group);
            }
        }
        self.open.remove(&number)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.table().remove(self.group, self.number);
    }
}

impl Connection {
    /// Notes the start of a request.
    pub(crate) fn begin(&self) -> RequestGuard {
        self.0.requested.store(true, Ordering::Relaxed);
        self.0.in_progress.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    /// Returns true once a request arrived.
    pub(crate) fn has_requests(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Waits until the connection has to close to make room.
    pub(crate) async fn displaced(&self) {
        self.0.closing.cancelled().await;
    }

    fn priority(&self) -> Priority {
        let in_progress = self.0.in_progress.load(Ordering::Relaxed) > 0;
        match (self.0.authenticated.load(Ordering::Relaxed), in_progress) {
            (false, false) if self.has_requests() => Priority::AnonymousIdle,
            (false, _) => Priority::Anonymous,
            (true, false) => Priority::AuthenticatedIdle,
            (true, true) => Priority::Busy,
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes that a request showed a valid credential: it may use more memory, and its connection is not closed to make
/// room for an anonymous one.
pub(crate) fn note_credential(extensions: &Extensions, account: Option<AccountRowId>) {
    if let Some(memory) = extensions.get::<RequestMemory>() {
        memory.set_authenticated(account);
    }
    if let Some(Connection(open)) = extensions.get::<Connection>() {
        open.authenticated.store(true, Ordering::Relaxed);
    }
}

/// Bodies of anonymous requests being read, by client address.
#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    /// Oldest first.
    reading: HashMap<IpAddr, VecDeque<Reading>>,
}

#[derive(Debug)]
struct Reading {
    number: u64,
    /// The client it claims to forward for.
    claimed: Option<IpAddr>,
    cut_off: CancellationToken,
}

/// Chooses the body of a client address that has to make room for another of this claim.
fn displaced_body(reading: &VecDeque<Reading>, claimed: Option<IpAddr>) -> Option<usize> {
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for one in reading {
        *counts.entry(one.claimed).or_default() += 1;
    }
    if counts.get(&claimed).is_some_and(|own| *own >= ANONYMOUS_BODIES) {
        return reading.iter().position(|one| one.claimed == claimed);
    }
    counts.remove(&None);
    if claimed.is_none() || counts.values().sum::<usize>() < CLAIMED_BODIES {
        return None;
    }
    let most = counts.values().max();
    reading.iter().position(|one| counts.get(&one.claimed) == most)
}

/// Permission to read a body; ends on drop.
pub(crate) struct BodyPermit<'c> {
    connections: &'c Connections,
    client: IpAddr,
    number: u64,
    cut_off: CancellationToken,
}

impl BodyPermit<'_> {
    /// Waits until a newer body of the address takes its place.
    pub(crate) async fn displaced(&self) {
        self.cut_off.cancelled().await;
    }
}

impl Drop for BodyPermit<'_> {
    fn drop(&mut self) {
        let mut bodies = self.connections.bodies();
        if let Some(reading) = bodies.reading.get_mut(&self.client) {
            reading.retain(|one| one.number != self.number);
            if reading.is_empty() {
                bodies.reading.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

    use super::*;
    use crate::metrics::{Format, text};

    fn shown(connections: &Arc<Connections>) -> String {
        text(Format::Prometheus, vec![Box::new(Arc::clone(connections))]).unwrap()
    }

    fn connections() -> Arc<Connections> {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Arc::new(Connections::new(ConnectionLimits { connections: 6, of_address: 3, proxies }))
    }

    fn admit(connections: &Arc<Connections>, address: &str) -> Option<ConnectionSlot> {
        connections.admit(address.parse().unwrap())
    }

    fn is_displaced(slot: &ConnectionSlot) -> bool {
        slot.connection.0.closing.is_cancelled()
    }

    fn prove(slot: &ConnectionSlot) {
        let mut extensions = Extensions::new();
        extensions.insert(slot.connection.clone());
        note_credential(&extensions, None);
    }

    #[test]
    fn at_the_cap_of_an_address_its_oldest_stranger_goes_and_nobody_who_is_known_and_at_work() {
        let connections = connections();
        let known = admit(&connections, "2001:db8::1").unwrap();
        prove(&known);
        let in_progress = known.connection.begin();
        let stuck = admit(&connections, "2001:db8::2").unwrap();
        let _stuck_at = stuck.connection.begin();
        let idle = admit(&connections, "2001:db8::3").unwrap();
        drop(idle.connection.begin());
        let first = admit(&connections, "2001:db8::4").unwrap();
        assert!(is_displaced(&idle) && !is_displaced(&stuck));
        let second = admit(&connections, "2001:db8::5").unwrap();
        assert!(is_displaced(&stuck) && !is_displaced(&first) && !is_displaced(&known));
        prove(&first);
        prove(&second);
        let (_one, _two) = (first.connection.begin(), second.connection.begin());
        assert!(admit(&connections, "2001:db8::6").is_none());
        assert!(shown(&connections).contains("mailkite_http_connections_refused_total 1\n"));
        drop(in_progress);
        assert!(admit(&connections, "2001:db8::7").is_some() && is_displaced(&known));
        assert!(admit(&connections, "2001:db8:0:1::1").is_some(), "another network");
    }

    #[test]
    fn at_the_cap_of_all_the_address_with_most_makes_room_and_a_proxy_last() {
        let connections = connections();
        let proxied: Vec<_> = (0..3).map(|_| admit(&connections, "10.0.0.1").unwrap()).collect();
        let two: Vec<_> = (0..2).map(|_| admit(&connections, "192.0.2.1").unwrap()).collect();
        let one = admit(&connections, "192.0.2.2").unwrap();
        let new = admit(&connections, "192.0.2.3").unwrap();
        assert!(is_displaced(&two[0]) && !is_displaced(&two[1]) && !is_displaced(&one));
        assert!(shown(&connections).contains("mailkite_http_connections 6\n"));
        for slot in [&two[1], &one, &new] {
            prove(slot);
        }
        let _work: Vec<_> = [&two[1], &one, &new].map(|slot| slot.connection.begin()).into();
        let last = admit(&connections, "192.0.2.4").unwrap();
        assert_eq!(proxied.iter().filter(|slot| is_displaced(slot)).count(), 1);
        drop((last, proxied, two, one, new));
        assert!(shown(&connections).contains("mailkite_http_connections 0\n"));
        assert!(connections.table().by_address.is_empty());
    }

    #[test]
    fn the_oldest_body_of_an_address_without_a_credential_makes_room_for_a_new_one() {
        let connections = connections();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let permits: Vec<_> = (0..=ANONYMOUS_BODIES).map(|_| connections.read_anonymous(client, None)).collect();
        let other = connections.read_anonymous("192.0.2.2".parse().unwrap(), None);
        let lost: Vec<bool> = permits.iter().map(|permit| permit.cut_off.is_cancelled()).collect();
        assert!(lost[0] && !other.cut_off.is_cancelled());
        assert_eq!(lost.iter().filter(|lost| **lost).count(), 1);
        drop((permits, other));
        assert!(connections.bodies().reading.is_empty());
    }

    #[test]
    fn bodies_count_by_claim_and_all_claims_of_one_address_are_capped() {
        let connections = connections();
        let address = |last: usize| format!("198.51.100.{last}").parse::<IpAddr>().unwrap();
        let proxy: IpAddr = "127.0.0.1".parse().unwrap();
        let is_lost = |permit: &BodyPermit<'_>| permit.cut_off.is_cancelled();
        let direct = connections.read_anonymous(address(1), None);
        let honest = connections.read_anonymous(proxy, Some(address(2)));
        let stranger: Vec<_> =
            (0..=ANONYMOUS_BODIES).map(|_| connections.read_anonymous(proxy, Some(address(1)))).collect();
        assert!(is_lost(&stranger[0]) && !is_lost(&stranger[1]), "its own oldest");
        assert!(!is_lost(&direct) && !is_lost(&honest), "nobody else's");
        let many: Vec<_> =
            (3..).map(|last| connections.read_anonymous(proxy, Some(address(last)))).take(200).collect();
        let lost = many.iter().chain(&stranger).filter(|permit| is_lost(permit)).count();
        assert_eq!(many.len() + stranger.len() - lost + usize::from(!is_lost(&honest)), CLAIMED_BODIES);
        assert!(
            stranger.iter().filter(|permit| !is_lost(permit)).count() <= 1,
            "the claim with most gives way first"
        );
        let own = connections.read_anonymous(proxy, None);
        assert!(!is_lost(&own) && !is_lost(&direct));
    }
}
