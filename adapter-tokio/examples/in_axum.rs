//! Fan-out inside an axum program that keeps its routes, its cookies and its authorisation.
//!
//! Take it if you have a web server on tokio already and want its WebSockets spread over instances: the server answers
//! requests and makes the handshake, the hub has the connections from then on. The handlers publish and subscribe, too.
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1 cargo run --release -p fanfare-tokio --example in_axum
//!
//! wscat --connect ws://localhost:3000/chat/tea                                   # 401: no cookie
//! wscat --connect ws://localhost:3000/chat/tea --header 'Cookie: session=s-ann'  # ann's; s-bob is bob's
//! curl --data 'The kettle is on' http://localhost:3000/notify/tea
//! curl http://localhost:3000/latest
//! curl http://localhost:3000/ready                                               # 503 and why while Redis is away
//! curl http://localhost:3000/metrics                                             # for Prometheus
//! ```

use std::env;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fanfare_tokio::core::http::{self, Answer, OriginPolicy, Upgrade};
use fanfare_tokio::core::route::{FrameType, Rights, Target};
use fanfare_tokio::core::time::Duration;
use fanfare_tokio::{Heard, Hub, HubError, Reserved, Setup, Subscription};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut setup = Setup::default();
    setup.redis = env::var("REDIS_URL").ok().map(|url| url.parse()).transpose()?;
    let hub = Hub::start(setup).await?;
    let listener = TcpListener::bind("localhost:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router(&hub).await?)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(hub.stop().await?)
}

#[derive(Clone)]
struct App {
    hub: Hub,
    /// The latest message in the tea room.
    latest: Arc<Mutex<Bytes>>,
}

/// The program's routes, all in one place.
pub(crate) async fn router(hub: &Hub) -> Result<Router, HubError> {
    let app = App { hub: hub.clone(), latest: Arc::default() };
    let subscription = hub.subscribe("chat:tea", FrameType::Text).await?;
    tokio::spawn(remember(subscription, app.latest.clone()));
    Ok(Router::new()
        .route("/chat/{room}", get(chat))
        .route("/notify/{room}", post(notify))
        .route("/latest", get(latest))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app))
}

/// Publishes from a handler. Waits while Redis is away, so that whoever posts too much is held up and nothing piles up.
async fn notify(State(app): State<App>, Path(room): Path<String>, message: String) -> Response {
    match app.hub.publish(format!("chat:{room}"), message).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(HubError::Misuse(misuse)) => (StatusCode::BAD_REQUEST, misuse.to_string()).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn latest(State(app): State<App>) -> Bytes {
    app.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether a load balancer should send anybody here.
async fn ready(State(app): State<App>) -> Response {
    match app.hub.metrics().await.map(|metrics| metrics.readiness) {
        Ok(Ok(())) => "ready".into_response(),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason.text()).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// What Prometheus reads. It is not for the public: have it on a listener of its own, or refuse it in front.
async fn metrics(State(app): State<App>) -> Response {
    match app.hub.metrics().await {
        Ok(metrics) => {
            ([(CONTENT_TYPE, fanfare_server::metrics::CONTENT_TYPE)], fanfare_server::metrics::text(&metrics))
                .into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn remember(mut subscription: Subscription, latest: Arc<Mutex<Bytes>>) {
    while let Some(heard) = subscription.next().await {
        match heard {
            Heard::Message(message) => *latest.lock().unwrap_or_else(PoisonError::into_inner) = message,
            missed => eprintln!("not all was heard: {missed:?}"),
        }
    }
}

/// Answers the request for a WebSocket, and hands it over once the answer has left.
async fn chat(State(app): State<App>, Path(room): Path<String>, mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    match authorise(&room, &head).await {
        // The session is in its channel before the answer leaves, so that the client misses nothing after it.
        Ok((upgrade, target)) => match app.hub.reserve(target).await {
            Ok(session) => {
                tokio::spawn(hand_over(session, upgraded));
                switch(&upgrade)
            }
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        },
        Err((status, reason)) => (status, reason).into_response(),
    }
}

/// Who asks, from where, and what for? Only then is there anything to switch to.
async fn authorise(room: &str, head: &Parts) -> Result<(Upgrade, Target), (StatusCode, String)> {
    let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let offer = http::Request::from_parts(head.method.as_str(), &head.uri.to_string(), fields)
        .and_then(|offer| offer.upgrade().map(|upgrade| (offer, upgrade)));
    let (offer, upgrade) = offer.map_err(|error| {
        let status = StatusCode::from_u16(Answer::for_error(error).status);
        (status.unwrap_or(StatusCode::BAD_REQUEST), error.to_string())
    })?;
    // Browsers send the cookie for any page that asks, so that a cookie alone says nothing about who asks.
    let origin = OriginPolicy::default().check(&offer, None);
    origin.map_err(|refused| (StatusCode::FORBIDDEN, refused.to_string()))?;
    let session = cookie(&head.headers, "session");
    let user = user_of(session).await.ok_or_else(|| (StatusCode::UNAUTHORIZED, "Who are you?".to_owned()))?;
    let rights =
        rights_of(user, room).await.ok_or_else(|| (StatusCode::FORBIDDEN, format!("Not your room, {user}.")))?;
    let mut target = Target::new(format!("chat:{room}"));
    target.rights = rights;
    Ok((upgrade, target))
}

fn switch(upgrade: &Upgrade) -> Response {
    let mut answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    // Name one of the subprotocols that were offered instead of `None` if the clients speak any.
    for (name, value) in upgrade.fields(None).unwrap_or_default() {
        answer = answer.header(name, value);
    }
    answer.body(Body::empty()).unwrap_or_else(|error| error.to_string().into_response())
}

async fn hand_over(session: Reserved, upgraded: OnUpgrade) {
    let Ok(upgraded) = upgraded.await else { return };
    // Behind TLS it is another type; `Connection::over` takes any that reads and writes, `Upgraded` itself too.
    match downcast::<TokioIo<TcpStream>>(upgraded) {
        // A client may send messages before it has our answer, and some of them were read with the request.
        Ok(parts) => session.adopt(parts.io.into_inner(), parts.read_buf),
        Err(_) => eprintln!("a connection is not what the listener gave"),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split("; ")).filter_map(|cookie| cookie.split_once('='));
    cookies.find(|(other, _)| *other == name).map_or("", |(_, value)| value)
}

/// As a database would say.
async fn user_of(session: &str) -> Option<&'static str> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    match session {
        "s-ann" => Some("ann"),
        "s-bob" => Some("bob"),
        _ => None,
    }
}

/// Everybody may drink tea; the news are ann's to write and bob's to read.
async fn rights_of(user: &str, room: &str) -> Option<Rights> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    match (user, room) {
        (_, "tea") | ("ann", "news") => Some(Rights::ALL),
        ("bob", "news") => Some(Rights::SUBSCRIBE),
        _ => None,
    }
}
