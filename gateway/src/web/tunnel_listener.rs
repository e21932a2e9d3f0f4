//! A listener inside the tunnel.

use std::future::pending;
use std::net::SocketAddr;

use axum::serve::Listener;

/// Takes connections that come through the tunnel's stack in this process.
#[derive(Debug)]
pub struct TunnelListener(pub tunnel::TcpListener);

impl Listener for TunnelListener {
    type Io = tunnel::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.accept().await {
            Ok(stream) => {
                let peer = stream.peer_addr();
                (stream, peer)
            }
            // The tunnel has ended, and the process is about to.
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], self.0.port())))
    }
}
