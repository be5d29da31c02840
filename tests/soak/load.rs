//! The clients: a request every so often, whatever has become of those before (an open loop). What each asks, of whom,
//! and which fault it carries follows from seed and number.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::options::Options;
use crate::replicas::{REPLICAS, Replica};
use crate::report::{Outcome, Seen};
use crate::schedule::{Place, Schedule};
use crate::support::client::{Ask, Connection, Reply};
use crate::support::traffic::{ASKERS, Asked, Oracle, Question, Verdict, layer};

/// So many questions of each asker; few enough that all are asked in the warm-up.
const QUESTIONS: usize = 40;

/// Of a hundred requests, in a fault of upstream or of clients, so many meet it.
const FAULTY: u8 = 50;

/// Around a cause, so long is an effect put down to it.
const SLACK: Duration = Duration::from_secs(1);

/// A connection that has been idle for longer is not used again.
const IDLE: Duration = Duration::from_secs(5);

/// What is asked: who of whom, and what goes wrong with it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    asked: Asked,
    target: usize,
    /// The client takes no stored reply (`Cache-Control: no-cache`).
    fresh: bool,
    /// What upstream is to do, where it is asked.
    fault: Option<&'static str>,
    /// The client leaves so soon after the request, or after the first bytes.
    leaves: Option<Duration>,
}

impl Plan {
    fn new(seed: u64, number: u64, time: Option<Duration>, schedule: &Schedule) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let whose = rng.usize(..ASKERS.len());
        // Some are asked often, some seldom.
        let question = rng.usize(..QUESTIONS).min(rng.usize(..QUESTIONS));
        let asked = Asked {
            asker: whose,
            question: Question::numbered(question),
            wording: usize::from(rng.u8(..100) < 25),
            streamed: rng.bool(),
        };
        let target = rng.usize(..REPLICAS);
        let fresh = rng.u8(..100) < 2;
        let at = |place| time.and_then(|time| schedule.at(place, time));
        let (meets, leaves) = (rng.u8(..100) < FAULTY, rng.u8(..100) < FAULTY);
        let soon = Duration::from_millis(rng.u64(..20));
        let leaves = (leaves && at(Place::Clients).is_some()).then_some(soon);
        // Who leaves does not see what became of it: it must not spoil what others wait for.
        let kind = at(Place::Upstream).filter(|_| meets && leaves.is_none());
        let fault = kind.and_then(|kind| kind.header(&mut rng));
        Self { asked, target, fresh, fault, leaves }
    }

    fn ask(&self, base: &str) -> Ask {
        let mut ask = self.asked.ask(base).header("accept-encoding", "gzip");
        if self.fresh {
            ask = ask.header("cache-control", "no-cache");
        }
        if let Some(header) = self.fault {
            ask = ask.header("x-simulated-fault", header);
        }
        ask
    }

    fn name(&self) -> (usize, String) {
        (self.asked.asker, self.asked.prompt())
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Status(u16),
    /// The reply broke off, or none began.
    Cut,
}

impl Failure {
    /// Whether it is what upstream's fault must look like to the client.
    fn follows_from(self, fault: &str) -> bool {
        match (fault.split_once('='), self) {
            (Some(("status", code)), Self::Status(status)) => code == status.to_string(),
            // In the middle of the reply, or before the replica passed on anything of it.
            (Some(("reset" | "close", _)), failure) => matches!(failure, Self::Cut | Self::Status(502)),
            (Some(("stall", _)), failure) => matches!(failure, Self::Cut | Self::Status(502 | 504)),
            (None, Self::Status(502)) => matches!(fault, "reset" | "close" | "garbage"),
            (None, Self::Status(504)) => fault == "stall",
            _ => false,
        }
    }
}

/// When a request with a fault for upstream was under way.
#[derive(Debug, Clone, Copy)]
struct Spoilt {
    number: u64,
    fault: &'static str,
    from: Instant,
    until: Option<Instant>,
}

/// All clients.
pub struct Load {
    options: Options,
    schedule: Schedule,
    replicas: Vec<Arc<Replica>>,
    oracle: Arc<Oracle>,
    idle: Vec<Mutex<Vec<(Connection, Instant)>>>,
    /// When requests with a fault for upstream were under way, by what they ask: who asks the same at the same time
    /// shares their fate.
    spoilt: Mutex<HashMap<(usize, String), Vec<Spoilt>>>,
    /// When upstream refused connections.
    pub gone: Mutex<Vec<(Instant, Option<Instant>)>>,
    pub seen: Mutex<Vec<Seen>>,
}

impl Load {
    pub async fn new(options: Options, schedule: Schedule, replicas: Vec<Arc<Replica>>) -> Self {
        let idle = replicas.iter().map(|_| Mutex::default()).collect();
        let oracle = Arc::new(Oracle::start().await);
        Self {
            options,
            schedule,
            replicas,
            oracle,
            idle,
            spoilt: Mutex::default(),
            gone: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Asks for so long, at the rate; `faults` says whether the schedule's time runs. Returns when all have their
    /// reply, and all connections are closed. `number` is the first request's; the next one's is returned.
    pub async fn run(self: &Arc<Self>, number: u64, lasting: Duration, faults: bool) -> u64 {
        let begun = Instant::now();
        let mut requests = JoinSet::new();
        let mut sent = 0_u32;
        loop {
            let at = Duration::from_secs(1).mul_f64(f64::from(sent) / f64::from(self.options.rate));
            if at >= lasting {
                break;
            }
            tokio::time::sleep_until((begun + at).into()).await;
            let number = number + u64::from(sent);
            let plan = Plan::new(self.options.seed, number, faults.then_some(at), &self.schedule);
            let load = Arc::clone(self);
            requests.spawn(async move { load.request(plan, number).await });
            sent += 1;
            while requests.try_join_next().is_some() {}
        }
        while let Some(ended) = requests.join_next().await {
            ended.unwrap();
        }
        for idle in &self.idle {
            idle.lock().clear();
        }
        number + u64::from(sent)
    }

    async fn request(self: Arc<Self>, plan: Plan, number: u64) {
        let started = Instant::now();
        if let Some(soon) = plan.leaves {
            self.leave(&plan, soon).await;
            return self.note(number, started, false, Outcome::Left);
        }
        if let Some(fault) = plan.fault {
            let spoilt = Spoilt { number, fault, from: started, until: None };
            self.spoilt.lock().entry(plan.name()).or_default().push(spoilt);
        }
        let (outcome, retried) = self.ask(&plan, started).await;
        self.spoilt_until_now(&plan, number);
        self.note(number, started, retried, outcome.about(&plan.asked.prompt()));
    }

    /// Asks one replica after the other, until one lives to answer; whether there was another than the first.
    async fn ask(&self, plan: &Plan, started: Instant) -> (Outcome, bool) {
        for turn in 0..REPLICAS {
            let target = (plan.target + turn) % REPLICAS;
            let sent = Instant::now();
            let outcome = match tokio::time::timeout(self.options.patience(), self.attempt(plan, target))
                .await
            {
                // A client that loses its replica asks another.
                Ok(Err(_)) if self.replicas[target].was_away(sent) => continue,
                Ok(Err(error)) => self.excused(plan, started, Failure::Cut).unwrap_or(Outcome::Lost(error)),
                Ok(Ok(reply)) => self.judge(plan, reply, started).await,
                Err(_) => Outcome::Lost("no end of the reply".to_owned()),
            };
            return (outcome, turn > 0);
        }
        (Outcome::Lost("no replica lives".to_owned()), true)
    }

    fn spoilt_until_now(&self, plan: &Plan, number: u64) {
        if let Some(times) = self.spoilt.lock().get_mut(&plan.name()) {
            let now = Instant::now();
            for time in times.iter_mut().filter(|time| time.number == number) {
                time.until = Some(now);
            }
            let kept = self.options.patience() * 3;
            times.retain(|time| time.until.is_none_or(|until| now.duration_since(until) < kept));
        }
    }

    /// One attempt at one replica; `Err` where the connection failed or the reply was cut.
    async fn attempt(&self, plan: &Plan, target: usize) -> Result<Reply, String> {
        let address = self.replicas[target].address;
        let ask = plan.ask(&format!("http://{address}"));
        loop {
            let idle = self.idle[target].lock().pop();
            let reused = idle.is_some();
            let mut connection = match idle {
                Some((_, since)) if since.elapsed() > IDLE => continue,
                Some((connection, _)) => connection,
                None => match Connection::open(address).await {
                    Ok(connection) => connection,
                    Err(error) => return Err(error.to_string()),
                },
            };
            match connection.send(ask.clone()).await {
                Ok(reply) => {
                    self.idle[target].lock().push((connection, Instant::now()));
                    return Ok(reply);
                }
                // It was closed before the request went out.
                Err(error) if reused && (error.is_canceled() || error.is_closed()) => {}
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }

    /// Asks, and goes away after a moment, or with the first bytes.
    async fn leave(&self, plan: &Plan, soon: Duration) {
        let ask = plan.ask(&format!("http://{}", self.replicas[plan.target].address));
        let reads = async {
            if let Ok(mut stream) = ask.try_open().await {
                stream.next().await;
            }
        };
        let _ = tokio::time::timeout(soon, reads).await;
    }

    async fn judge(&self, plan: &Plan, reply: Reply, started: Instant) -> Outcome {
        let layer = layer(&reply);
        let status = reply.status;
        let reply = match decoded(reply) {
            Ok(reply) => reply,
            Err(error) => return Outcome::Wrong(error),
        };
        if status != 200 {
            let text = format!("{status}: {:?}", reply.body);
            let failure = Failure::Status(status.as_u16());
            return self.excused(plan, started, failure).unwrap_or(Outcome::Failed(text));
        }
        // A hit is never excused: what upstream spoilt must not be stored.
        let excused = self.excused_inside(plan, started).filter(|_| layer.is_none());
        if excused.is_some() && memchr::memmem::find(&reply.body, b"\"error\"").is_some() {
            return Outcome::Upstream;
        }
        let (oracle, asked) = (Arc::clone(&self.oracle), plan.asked);
        // What cannot even be read fails there.
        match tokio::spawn(async move { oracle.judge(&asked, &reply).await }).await {
            Ok(Verdict::Right) => Outcome::Right(layer),
            Ok(Verdict::Wrong(text) | Verdict::Failed(text)) => excused.unwrap_or(Outcome::Wrong(text)),
            Err(error) => excused.unwrap_or_else(|| Outcome::Wrong(format!("not to be read: {error}"))),
        }
    }

    /// Whether a request may have failed like this by a fault of upstream: its own, that of one for the same at the
    /// same time, or that upstream was not there.
    fn excused(&self, plan: &Plan, started: Instant, failure: Failure) -> Option<Outcome> {
        let gone = || self.gone.lock().iter().any(|(from, until)| overlaps(*from, *until, started));
        let excused = self.is_spoilt(plan, started, |fault| failure.follows_from(fault))
            || matches!(failure, Failure::Cut | Failure::Status(502)) && gone();
        excused.then_some(Outcome::Upstream)
    }

    /// As [`Self::excused`], for what came with 200, whole: only one fault does that.
    fn excused_inside(&self, plan: &Plan, started: Instant) -> Option<Outcome> {
        self.is_spoilt(plan, started, |fault| fault == "error").then_some(Outcome::Upstream)
    }

    fn is_spoilt(&self, plan: &Plan, started: Instant, which: impl Fn(&str) -> bool) -> bool {
        let spoilt = self.spoilt.lock();
        let mut times = spoilt.get(&plan.name()).into_iter().flatten();
        times.any(|time| which(time.fault) && overlaps(time.from, time.until, started))
    }

    fn note(&self, number: u64, started: Instant, retried: bool, outcome: Outcome) {
        let took = started.elapsed();
        self.seen.lock().push(Seen { number, started, took, retried, outcome });
    }
}

/// Whether something from `from` until then (or still) may concern a request that began at `started`.
fn overlaps(from: Instant, until: Option<Instant>, started: Instant) -> bool {
    from <= Instant::now() && until.is_none_or(|until| until + SLACK >= started)
}

fn decoded(reply: Reply) -> Result<Reply, String> {
    match reply.header("content-encoding") {
        None | Some("identity") => Ok(reply),
        Some("gzip") => {
            let mut body = Vec::new();
            let read = flate2::read::MultiGzDecoder::new(&*reply.body).read_to_end(&mut body);
            read.map_err(|error| format!("no gzip: {error}"))?;
            Ok(Reply { body: Bytes::from(body), ..reply })
        }
        Some(other) => Err(format!("{other}, which nobody asked for")),
    }
}
