//! A server that answers with the bytes that a test gives it, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, byte for byte.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status, headers and a whole body.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// A status with a `Retry-After`, but the connection ends before the body does.
    Torn(u16, Vec<u8>),
    /// A body that never ends: this again and again.
    Endless(Vec<u8>),
    /// No answer at all.
    Silence,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Reply::Whole(status, vec![("content-type".to_owned(), "application/json".to_owned())], body.into().into_bytes())
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::json(
            status,
            format!(r#"{{"errors": [{{"status": "{status}", "code": "{code}", "title": "t", "detail": "d"}}]}}"#),
        )
    }

    pub(crate) fn html(status: u16) -> Self {
        Reply::Whole(
            status,
            vec![("content-type".to_owned(), "text/html".to_owned())],
            b"<html>front server</html>".to_vec(),
        )
    }

    pub(crate) fn with(self, name: &str, value: impl Into<String>) -> Self {
        match self {
            Reply::Whole(status, mut headers, body) => {
                headers.push((name.to_owned(), value.into()));
                Reply::Whole(status, headers, body)
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct Script {
    tokens: VecDeque<Reply>,
    api: VecDeque<Reply>,
    seen: Vec<Request>,
    in_flight: usize,
    most_in_flight: usize,
    connections: usize,
}

/// The server; it ends when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const TOKEN: &str =
    r#"{"access_token": "canary-token-1", "token_type": "Bearer", "expires_in": 3600, "scope": "business.api"}"#;

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, script, task }
    }

    /// Ends the server; nobody listens any more when this returns.
    pub(crate) async fn end(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds an answer of the API; the last one is repeated for ever.
    pub(crate) fn answer(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().api.push_back(reply);
        self
    }

    /// Adds an answer of the token endpoint; a good token follows the last one.
    pub(crate) fn token(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().tokens.push_back(reply);
        self
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.script.lock().unwrap().seen.clone()
    }

    pub(crate) fn tokens_asked(&self) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.method == "POST").collect()
    }

    pub(crate) fn gets(&self) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.method == "GET").collect()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.script.lock().unwrap().most_in_flight
    }

    pub(crate) fn connections(&self) -> usize {
        self.script.lock().unwrap().connections
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    while let Some(request) = read(&mut stream).await {
        let reply = {
            let mut script = script.lock().unwrap();
            script.in_flight += 1;
            script.most_in_flight = script.most_in_flight.max(script.in_flight);
            let token = request.method == "POST";
            script.seen.push(request);
            if token {
                script.tokens.pop_front().unwrap_or_else(|| Reply::json(200, TOKEN))
            } else {
                match script.api.len() {
                    0 => Reply::error(404, "NOT_FOUND"),
                    1 => script.api[0].clone(),
                    _ => script.api.pop_front().unwrap(),
                }
            }
        };
        let goes_on = write(&mut stream, reply).await;
        script.lock().unwrap().in_flight -= 1;
        if !goes_on {
            return;
        }
    }
}

async fn write(stream: &mut TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Whole(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} Text\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += "\r\n";
            stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok()
        }
        Reply::Torn(status, body) => {
            let length = body.len() + 1000;
            let head = format!("HTTP/1.1 {status} Text\r\nretry-after: 201\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            false
        }
        Reply::Endless(part) => {
            let head = "HTTP/1.1 200 Text\r\ncontent-length: 99999999999\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&part).await.is_ok() {}
            false
        }
        Reply::Silence => {
            // The client's deadline ends this, by closing the connection.
            let mut nothing = [0];
            let _ = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut nothing)).await;
            false
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => body.extend_from_slice(&chunk[..count]),
        }
    }
    Some(Request { method, target, headers, body: String::from_utf8(body).ok()? })
}
