//! Which fault begins when and lasts how long: all of it follows from the seed.

use std::time::Duration;

use fastrand::Rng;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    UpstreamResets,
    UpstreamTooMany,
    UpstreamErrors,
    UpstreamHalfStreams,
    UpstreamErrorsInside,
    UpstreamStalls,
    UpstreamSlow,
    UpstreamGzip,
    UpstreamGone,
    RedisKilled,
    RedisPaused,
    RedisFull,
    RedisReadOnly,
    ClientsVanish,
    Reload,
    BrokenReload,
    ReplicaKilled,
}

/// What only one fault at a time can befall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Upstream,
    Redis,
    Clients,
    Configuration,
    Replica,
}

impl Kind {
    pub const ALL: [Self; 17] = [
        Self::UpstreamResets,
        Self::UpstreamTooMany,
        Self::UpstreamErrors,
        Self::UpstreamHalfStreams,
        Self::UpstreamErrorsInside,
        Self::UpstreamStalls,
        Self::UpstreamSlow,
        Self::UpstreamGzip,
        Self::UpstreamGone,
        Self::RedisKilled,
        Self::RedisPaused,
        Self::RedisFull,
        Self::RedisReadOnly,
        Self::ClientsVanish,
        Self::Reload,
        Self::BrokenReload,
        Self::ReplicaKilled,
    ];

    pub fn place(self) -> Place {
        match self {
            Self::RedisKilled | Self::RedisPaused | Self::RedisFull | Self::RedisReadOnly => Place::Redis,
            Self::ClientsVanish => Place::Clients,
            Self::Reload | Self::BrokenReload => Place::Configuration,
            Self::ReplicaKilled => Place::Replica,
            _ => Place::Upstream,
        }
    }

    /// As the report has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UpstreamResets => "upstream resets",
            Self::UpstreamTooMany => "upstream 429",
            Self::UpstreamErrors => "upstream 5xx",
            Self::UpstreamHalfStreams => "upstream half replies",
            Self::UpstreamErrorsInside => "upstream 200 with an error inside",
            Self::UpstreamStalls => "upstream stalls for good",
            Self::UpstreamSlow => "upstream stalls for a while",
            Self::UpstreamGzip => "upstream gzip",
            Self::UpstreamGone => "upstream refuses connections",
            Self::RedisKilled => "Redis `kill -9`, back empty",
            Self::RedisPaused => "Redis `SIGSTOP`",
            Self::RedisFull => "Redis full, `noeviction`",
            Self::RedisReadOnly => "Redis read-only",
            Self::ClientsVanish => "clients vanish",
            Self::Reload => "`SIGHUP`, changed file",
            Self::BrokenReload => "`SIGHUP`, broken file",
            Self::ReplicaKilled => "replica `kill -9`",
        }
    }

    /// What the request says (`x-simulated-fault`) whose exchange upstream is to spoil.
    pub fn header(self, rng: &mut Rng) -> Option<&'static str> {
        let choices: &[&str] = match self {
            Self::UpstreamResets => &["reset", "close", "garbage"],
            Self::UpstreamTooMany => &["status=429"],
            Self::UpstreamErrors => &["status=500", "status=502", "status=503"],
            Self::UpstreamHalfStreams => &["reset=90", "close=90", "close=400"],
            Self::UpstreamErrorsInside => &["error"],
            Self::UpstreamStalls => &["stall", "stall=90"],
            _ => return None,
        };
        rng.choice(choices).copied()
    }
}

/// One fault; times are from the end of the warm-up.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub kind: Kind,
    pub from: Duration,
    pub until: Duration,
}

/// All faults of a run, by their beginning.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub events: Vec<Event>,
}

impl Schedule {
    /// Faults one after the other, `apart` between two beginnings (on average) and each `lasting` (on average), until
    /// `end`. All kinds come before one comes again.
    pub fn new(seed: u64, end: Duration, apart: Duration, lasting: Duration) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut events: Vec<Event> = Vec::new();
        let mut bag = Vec::new();
        let mut at = Duration::ZERO;
        loop {
            if bag.is_empty() {
                bag.extend(Kind::ALL);
                rng.shuffle(&mut bag);
            }
            let kind = bag.pop().unwrap();
            at += around(&mut rng, apart);
            // One place has one fault at a time, and a moment to come round.
            let busy = events.iter().filter(|event| event.kind.place() == kind.place());
            let free = busy.map(|event| event.until + apart / 4).max().unwrap_or_default();
            let from = at.max(free);
            let until = from + around(&mut rng, lasting);
            if until >= end {
                break;
            }
            events.push(Event { kind, from, until });
        }
        events.sort_by_key(|event| event.from);
        Self { events }
    }

    /// The fault that a place has at a time.
    pub fn at(&self, place: Place, time: Duration) -> Option<Kind> {
        let mut there = self.events.iter().filter(|event| event.kind.place() == place);
        there.find(|event| (event.from..event.until).contains(&time)).map(|event| event.kind)
    }
}

/// Half as long to one and a half times as long.
fn around(rng: &mut Rng, time: Duration) -> Duration {
    time.mul_f64(0.5 + rng.f64())
}
