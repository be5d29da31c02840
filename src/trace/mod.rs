//! Traces: what a request did and how long each step took, as spans of OpenTelemetry, sent to a collector by OTLP.
//!
//! Called by `server`, which begins a span for each request and makes its [`Trace`] the current one; by `proxy` for
//! calls of upstream; and by `cache` for its steps, which join the current trace by [`step`] without being handed it:
//! whoever calls the cache need not know of traces. Nothing of a prompt, a reply, a credential or a query string may
//! become an attribute. Where no collector is configured there is no [`Tracer`], and a step costs a look at a
//! thread-local.

mod collector;
pub(crate) mod context;
mod counts;
mod export;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan, SpanLimits};

pub use collector::ExportError;
pub use context::{TRACEPARENT, TRACESTATE};
pub use counts::SpanCounts;

use crate::config::Otlp;
use export::Exporter;

/// The semantic conventions whose names are used: the last release that holds those of generative AI, which have moved
/// to a repository of their own since and have no release there yet.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";

/// The longest text of an attribute that somebody else chose, in bytes.
const TEXT_BYTES: usize = 256;

tokio::task_local! {
    static CURRENT: Option<Trace>;
}

/// Begins traces, and sends their spans to the collector. Clones are one.
#[derive(Debug, Clone)]
pub struct Tracer {
    tracer: SdkTracer,
    exporter: Arc<Exporter>,
}

/// The trace of a request: where the spans of its steps belong. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracer: SdkTracer,
    /// The request's own span.
    span: SpanContext,
    /// The same, as the parent of others.
    parent: Context,
    /// Whether the client began the trace.
    continued: bool,
}

/// A span that is not ended yet. Dropping it ends it.
#[derive(Debug)]
pub struct Span {
    /// `None` for one that is not recorded, or is ended.
    recorded: Option<Box<SdkSpan>>,
    unfinished: Unfinished,
    failed: bool,
}

/// What is said of a span that is dropped before [`Span::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    /// Nothing: it just ends.
    Ends,
    /// Whoever asked went away.
    ClientDisconnected,
    /// Nobody wanted the reply any more, which is no error (HTTP semantic conventions, "Status").
    Abandoned,
}

impl Tracer {
    /// A tracer for this configuration, its exporter running; `None` where there is no collector.
    ///
    /// # Errors
    /// The collector's URL or a header cannot be used, which [`crate::config::Config::load`] does not let pass.
    pub fn start(otlp: &Otlp, counts: SpanCounts) -> Result<Option<Self>, ExportError> {
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(
                otlp.resource_attributes.iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())),
            )
            .with_service_name(otlp.service_name.clone())
            .build();
        let Some((exporter, queue)) = Exporter::start(otlp, &resource, counts)? else { return Ok(None) };
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sampling_ratio))))
            .with_span_limits(SpanLimits::default())
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder("rejoinder")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA)
            .build();
        Ok(Some(Self { tracer: provider.tracer_with_scope(scope), exporter: Arc::new(exporter) }))
    }

    /// Begins the span of a client's request: in the client's trace, where its headers name one.
    pub fn request(
        &self,
        headers: &HeaderMap,
        name: impl Into<Cow<'static, str>>,
        attributes: Vec<KeyValue>,
    ) -> (Span, Trace) {
        let parent = context::read(headers);
        let continued = parent.is_some();
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = builder.start_with_context(&self.tracer, &parent);
        let context = span.span_context().clone();
        let trace = Inner {
            tracer: self.tracer.clone(),
            parent: Context::new().with_remote_span_context(context.clone()),
            span: context,
            continued,
        };
        (Span::new(span, Unfinished::ClientDisconnected), Trace(Arc::new(trace)))
    }

    /// Sends what has ended, for as long as the exporter allows, and ends.
    pub async fn shutdown(&self) {
        self.exporter.shutdown().await;
    }
}

impl Trace {
    /// The trace of the request that is being worked on.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok().flatten()
    }

    /// Runs a piece of work of this trace to its next wait.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(Some(self.clone()), work)
    }

    fn is_recorded(&self) -> bool {
        self.0.span.is_sampled()
    }

    fn child(&self, kind: SpanKind, name: Cow<'static, str>, attributes: Vec<KeyValue>) -> SdkSpan {
        let builder = self.0.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        builder.start_with_context(&self.0.tracer, &self.0.parent)
    }

    /// Begins the span of a call of upstream, and names it in the headers of that call. `about` gives name and
    /// attributes, where they are wanted.
    ///
    /// A trace that is not exported has no span to name: what the client sent then travels as it came, and one that was
    /// to begin here is said not to be recorded.
    pub fn call(
        &self,
        headers: &mut HeaderMap,
        about: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
    ) -> Span {
        if !self.is_recorded() {
            if !self.0.continued {
                context::write(headers, &self.0.span, false);
            }
            return Span::NONE;
        }
        let (name, attributes) = about();
        let span = self.child(SpanKind::Client, name, attributes);
        context::write(headers, span.span_context(), self.0.continued);
        Span::new(span, Unfinished::Abandoned)
    }
}

/// Begins the span of a step in the current trace, if there is one and it is exported.
pub fn step(name: &'static str) -> Span {
    let begin = |trace: &Option<Trace>| {
        let trace = trace.as_ref().filter(|trace| trace.is_recorded())?;
        Some(Span::new(trace.child(SpanKind::Internal, name.into(), Vec::new()), Unfinished::Ends))
    };
    CURRENT.try_with(begin).ok().flatten().unwrap_or(Span::NONE)
}

/// Does this work as part of a trace: for tasks of their own, which have no current one.
pub fn within<R>(trace: Option<Trace>, work: impl Future<Output = R>) -> impl Future<Output = R> {
    CURRENT.scope(trace, work)
}

/// A text that somebody else chose, as an attribute may hold it: its beginning.
pub fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default().to_owned()
}

impl Span {
    /// One that is not recorded.
    pub const NONE: Self = Self { recorded: None, unfinished: Unfinished::Ends, failed: false };

    fn new(span: SdkSpan, unfinished: Unfinished) -> Self {
        Self { recorded: span.is_recording().then(|| Box::new(span)), unfinished, failed: false }
    }

    /// Whether anything is made of what is said of it.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Says something of it, once: the SDK would keep both.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says that it failed, by a name of few. What failed first is what counts.
    pub fn fail(&mut self, kind: impl Into<StringValue>) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        self.set("error.type", kind.into());
        if let Some(span) = &mut self.recorded {
            span.set_status(Status::error(""));
        }
    }

    /// Ends it.
    pub fn finish(&mut self) {
        if let Some(mut span) = self.recorded.take() {
            span.end();
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        match self.unfinished {
            Unfinished::Ends => {}
            Unfinished::ClientDisconnected => self.fail("client_disconnected"),
            Unfinished::Abandoned => self.set("rejoinder.abandoned", true),
        }
    }
}
