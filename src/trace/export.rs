//! Spans on their way to the collector: a bounded queue, batches, and what became of them.
//!
//! Called by [`super`]. A request that ends a span never waits: what the queue does not hold is dropped and counted. The
//! log says once that the collector does not take spans, and once that it does again.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::SpanCounts;
use super::collector::{Collector, ExportError, Taken};
use crate::config::Otlp;

/// Spans that may wait, as OpenTelemetry's default has it.
const QUEUE: usize = 2048;

/// Spans of one request.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// How long a shutdown sends what is left.
const FLUSH: Duration = Duration::from_secs(2);

/// The task that exports.
#[derive(Debug)]
pub(super) struct Exporter {
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Where ended spans wait.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: SpanCounts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.spans.try_send(span) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => drop(self.counts.queue_full.inc()),
            // After the end.
            Err(mpsc::error::TrySendError::Closed(_)) => drop(self.counts.failed.inc()),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Exporter {
    /// Begins to export; `None` where there is nowhere to.
    pub(super) fn start(
        otlp: &Otlp,
        resource: &Resource,
        counts: SpanCounts,
    ) -> Result<Option<(Self, Queue)>, ExportError> {
        if otlp.endpoint.is_none() {
            return Ok(None);
        }
        let collector = Collector::new(otlp)?;
        let (spans, ended) = mpsc::channel(QUEUE);
        let (closing, closes) = watch::channel(false);
        let exporting = Exporting {
            collector,
            resource: ResourceAttributesWithSchema::from(resource),
            ended,
            closes,
            counts: counts.clone(),
            failing: false,
        };
        let task = Mutex::new(Some(tokio::spawn(exporting.run())));
        Ok(Some((Self { closing, task }, Queue { spans, counts })))
    }

    /// Sends what is left, for a while, and ends.
    pub(super) async fn shutdown(&self) {
        // It may have ended already.
        let _ = self.closing.send(true);
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            warn!(%error, "the exporter of spans did not end as it should");
        }
    }
}

/// Exporting at work.
struct Exporting {
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    ended: mpsc::Receiver<SpanData>,
    closes: watch::Receiver<bool>,
    counts: SpanCounts,
    /// Whether the log has said that the collector does not take spans.
    failing: bool,
}

impl Exporting {
    async fn run(mut self) {
        let mut told = self.closes.clone();
        let mut batch = Vec::new();
        // The sender lives as long as the server; gone, it means the same.
        let closed = async move {
            drop(told.wait_for(|closing| *closing).await);
            Instant::now() + FLUSH
        };
        tokio::pin!(closed);
        let end = loop {
            tokio::select! {
                () = self.gather(&mut batch) => {}
                end = &mut closed => break end,
            }
            if batch.is_empty() {
                return;
            }
            let count = batch.len();
            let request = self.request(std::mem::take(&mut batch));
            let sent = tokio::select! {
                sent = self.collector.send_again(&request) => sent,
                end = &mut closed => {
                    // What was on its way, or waited for another attempt, has a last one.
                    let sent = self.send_until(end, &request).await;
                    self.note(sent, count);
                    break end;
                }
            };
            self.note(sent, count);
        };
        self.flush(batch, end).await;
    }

    async fn send_until(&self, end: Instant, request: &Bytes) -> Result<Taken, String> {
        match tokio::time::timeout_at(end, self.collector.send(request)).await {
            Ok(sent) => sent.map_err(|failure| failure.cause),
            Err(_) => Err("it did not answer before the end".to_owned()),
        }
    }

    /// Adds ended spans to a batch until it is full, or its first has waited long enough. Nothing is lost where this is
    /// given up.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() && self.ended.recv_many(batch, BATCH).await == 0 {
            return;
        }
        let enough = Instant::now() + GATHERING;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match tokio::time::timeout_at(enough, self.ended.recv_many(batch, room)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Sends what is left, once, until then; the rest is counted.
    async fn flush(&mut self, mut batch: Vec<SpanData>, end: Instant) {
        self.ended.close();
        loop {
            while batch.len() < BATCH
                && let Ok(span) = self.ended.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len();
            if count == 0 {
                return;
            }
            let request = self.request(std::mem::take(&mut batch));
            let sent = self.send_until(end, &request).await;
            self.note(sent, count);
        }
    }

    fn request(&self, spans: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// Counts what became of a batch.
    fn note(&mut self, sent: Result<Taken, String>, count: usize) {
        let count = count as u64;
        match sent {
            Ok(Taken { refused: 0, .. }) => {
                self.counts.exported.inc_by(count);
                if std::mem::take(&mut self.failing) {
                    info!("the collector takes spans again");
                }
            }
            Ok(Taken { refused, cause }) => {
                let refused = refused.min(count);
                self.counts.exported.inc_by(count - refused);
                self.fail(refused, &cause);
            }
            Err(cause) => self.fail(count, &cause),
        }
    }

    fn fail(&mut self, count: u64, cause: &str) {
        self.counts.failed.inc_by(count);
        if !std::mem::replace(&mut self.failing, true) {
            warn!(
                collector = %self.collector.url,
                cause,
                "the collector does not take spans; they are dropped and counted (rejoinder_spans_dropped_total)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn what_the_queue_does_not_hold_is_dropped_and_counted() {
        let counts = SpanCounts::default();
        let (spans, mut ended) = mpsc::channel(3);
        let queue = Queue { spans, counts: counts.clone() };
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        for _ in 0..5 {
            drop(tracer.start("span"));
        }
        assert_eq!((ended.len(), counts.queue_full.get(), counts.failed.get()), (3, 2, 0));
        ended.close();
        drop(tracer.start("late"));
        assert_eq!(counts.failed.get(), 1);
    }
}
