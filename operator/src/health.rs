//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How far the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not reached the API server yet.
    Starting,
    /// Another replica leads, and this one is ready to.
    Standby,
    /// It leads, and has not seen everything yet.
    Syncing,
    Leading,
}

/// The phase, shared with who asks for it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        let phases = [Phase::Standby, Phase::Syncing, Phase::Leading];
        let known = self.0.load(Ordering::Relaxed);
        phases
            .into_iter()
            .find(|phase| *phase as u8 == known)
            .unwrap_or(Phase::Starting)
    }
}

/// Serves until the task is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, health: Health, metrics: Metrics) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "serving metrics and health");
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state((health, metrics));
    axum::serve(listener, routes).await
}

async fn ready(State((health, _)): State<(Health, Metrics)>) -> (StatusCode, &'static str) {
    match health.phase() {
        Phase::Leading => (StatusCode::OK, "leading\n"),
        Phase::Standby => (StatusCode::OK, "standing by\n"),
        Phase::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server has not answered yet\n",
        ),
        Phase::Syncing => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not every kind has been listed yet\n",
        ),
    }
}

async fn metrics_text(State((_, metrics)): State<(Health, Metrics)>) -> (StatusCode, String) {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
