//! The HTTP server for metrics and health.
//!
//! | path | says |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/healthz` | 200 while the process answers |
//! | `/readyz` | 200 once the kernel has held the desired state, 503 before |

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::CONTENT_TYPE;

/// Brings the metrics up to date and renders them. It may read kernel maps, so it runs on a thread that may block.
pub type Scrape = Arc<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// A server that has its port and does not answer yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

#[derive(Clone)]
struct Shared {
    scrape: Scrape,
    ready: watch::Receiver<bool>,
}

impl Admin {
    /// Port 0 takes any that is free; [`address`](Self::address) says which.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is done; requests under way are finished first.
    pub async fn serve(
        self,
        scrape: Scrape,
        ready: watch::Receiver<bool>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .with_state(Shared { scrape, ready });
        axum::serve(self.listener, router)
            .with_graceful_shutdown(stop)
            .await
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || (shared.scrape)()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    tracing::warn!(error = format!("{error:#}"), "the metrics cannot be read");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the metrics cannot be read: {error:#}\n"),
    )
        .into_response()
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if *shared.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the kernel does not hold the desired state yet\n",
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    /// Status, content type and body.
    async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        let content_type = head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "))
            .unwrap_or_default();
        (status, content_type.to_owned(), body.to_owned())
    }

    fn answer(status: u16, content_type: &str, body: &str) -> (u16, String, String) {
        (status, content_type.to_owned(), body.to_owned())
    }

    const TEXT: &str = "text/plain; charset=utf-8";

    #[tokio::test]
    async fn it_answers_until_it_is_stopped() {
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("bound");
        let address = admin.address().expect("an address");
        let (set_ready, ready) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let scrape: Scrape = Arc::new(|| Ok("weir_up 1\n".to_owned()));
        let server = tokio::spawn(admin.serve(scrape, ready, async {
            let _ = stopped.await;
        }));

        assert_eq!(get(address, "/healthz").await, answer(200, TEXT, "ok\n"));
        assert_eq!(
            get(address, "/readyz").await,
            answer(503, TEXT, "the kernel does not hold the desired state yet\n")
        );
        set_ready.send(true).expect("a receiver");
        assert_eq!(get(address, "/readyz").await, answer(200, TEXT, "ok\n"));
        assert_eq!(
            get(address, "/metrics").await,
            answer(200, CONTENT_TYPE, "weir_up 1\n")
        );
        assert_eq!(get(address, "/else").await.0, 404);

        stop.send(()).expect("a server");
        server.await.expect("no panic").expect("no error");
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }

    #[tokio::test]
    async fn a_failed_scrape_says_why() {
        let admin = Admin::bind("[::1]:0".parse().expect("an address"))
            .await
            .expect("bound");
        let address = admin.address().expect("an address");
        let (_set_ready, ready) = watch::channel(true);
        let scrape: Scrape = Arc::new(|| Err(anyhow::anyhow!("no such map").context("rule_counts")));
        let server = tokio::spawn(admin.serve(scrape, ready, std::future::pending()));
        assert_eq!(
            get(address, "/metrics").await,
            answer(
                500,
                TEXT,
                "the metrics cannot be read: rule_counts: no such map\n"
            )
        );
        server.abort();
    }
}
