//! An agent as a process, on a unix socket and on a TCP port of the loopback address.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use sifter_proto::v1::GetStatusRequest;
use sifter_proto::v1::GetStatusResponse;
use sifter_proto::v1::Image;
use sifter_proto::v1::ImageView;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::ListImagesResponse;
use sifter_proto::v1::ScanRequest;
use sifter_proto::v1::StreamImagesRequest;
use sifter_proto::v1::agent_service_client::AgentServiceClient;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::process::Process;
use crate::process::binary;
use crate::wait;

/// The `System` that test agents report.
pub const SYSTEM: &str = "testcluster";

/// How to start an agent.
#[derive(Debug, Default)]
pub struct Options {
    roots: Vec<PathBuf>,
    config: Option<String>,
    unprivileged: bool,
    state_dir: Option<PathBuf>,
    listen: Vec<String>,
}

impl Options {
    /// An agent over these roots.
    pub fn roots<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Self {
        Self {
            roots: roots
                .into_iter()
                .map(|root| root.as_ref().to_owned())
                .collect(),
            ..Self::default()
        }
    }

    /// An agent with a configuration file of this text.
    pub fn config(text: &str) -> Self {
        Self {
            config: Some(text.to_owned()),
            ..Self::default()
        }
    }

    /// As `nobody`, where the test runs as root: permissions do not stop root.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = crate::is_superuser();
        self
    }

    /// With the catalogue in this directory and not in one of its own.
    #[must_use]
    pub fn state_dir(mut self, dir: &Path) -> Self {
        self.state_dir = Some(dir.to_owned());
        self
    }

    /// With one more address.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    /// Its socket.
    pub socket: PathBuf,
    /// Its TCP address.
    pub tcp: SocketAddr,
    dir: TempDir,
}

impl Agent {
    /// Starts an agent and waits until its first scan has finished.
    pub fn ready(options: Options) -> Self {
        let mut agent = Self::start(options);
        agent.wait_until_ready();
        agent
    }

    /// Starts an agent and waits until it listens.
    pub fn start(options: Options) -> Self {
        let dir = TempDir::new().expect("directory of the agent");
        let socket = dir.path().join("agent.sock");
        let state = options
            .state_dir
            .unwrap_or_else(|| dir.path().join("state"));
        std::fs::create_dir_all(&state).expect("state directory");
        let mut args: Vec<OsString> = vec!["agent".into()];
        if let Some(text) = &options.config {
            let path = dir.path().join("agent.toml");
            std::fs::write(&path, text).expect("configuration file");
            args.extend(["--config".into(), path.into()]);
        }
        for root in &options.roots {
            args.extend(["--root".into(), root.into()]);
        }
        let unix = format!("unix:{}", socket.display());
        for (name, value) in [
            ("--listen", "127.0.0.1:0".as_ref()),
            ("--listen", unix.as_ref()),
            ("--system", SYSTEM.as_ref()),
            ("--state-dir", state.as_os_str()),
        ] {
            args.extend([name.into(), value.into()]);
        }
        for address in &options.listen {
            args.extend(["--listen".into(), address.into()]);
        }
        let mut command = if options.unprivileged {
            for path in [dir.path(), &state] {
                nix::unistd::chown(path, Some(65534.into()), Some(65534.into()))
                    .expect("chown to nobody");
            }
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ]);
            command.arg(readable_binary(dir.path()));
            command
        } else {
            Command::new(binary("sifter"))
        };
        let mut process = Process::start(command.args(args), &dir.path().join("agent.log"));
        let tcp = wait::until("the agent's TCP address", || {
            process.expect_running();
            let addresses = addresses(&process);
            let tcp = addresses.iter().find_map(|address| address.parse().ok());
            tcp.ok_or("not said yet")
        });
        wait::until("the agent's socket", || {
            process.expect_running();
            std::os::unix::net::UnixStream::connect(&socket)
        });
        Self {
            process,
            socket,
            tcp,
            dir,
        }
    }

    /// Waits until the first scan has finished.
    pub fn wait_until_ready(&mut self) {
        let runtime = runtime();
        wait::until("a ready agent", || {
            self.process.expect_running();
            let status = runtime
                .block_on(self.status())
                .map_err(|error| format!("{error:?}"))?;
            if status.ready {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        });
    }

    /// Where it says that it listens.
    pub fn addresses(&self) -> Vec<String> {
        addresses(&self.process)
    }

    /// A directory that lives as long as the agent.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The socket as an address of `sifter` and of the control plane: `unix:/path`.
    pub fn unix_address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// A channel over TCP.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.tcp))
            .expect("address")
            .connect()
            .await
            .expect("the agent accepts")
    }

    /// `GetStatus`.
    pub async fn status(&self) -> Result<GetStatusResponse, Status> {
        let mut client = AgentServiceClient::new(self.channel().await);
        Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
    }

    /// `ListImages`.
    pub async fn list(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Status> {
        let answer = ImageServiceClient::new(self.channel().await)
            .list_images(request)
            .await;
        Ok(answer?.into_inner())
    }

    /// Asks for a scan and waits until it has finished.
    pub fn scan(&self) {
        runtime().block_on(async {
            let mut progress = AgentServiceClient::new(self.channel().await)
                .scan(ScanRequest {
                    wait: true,
                    ..ScanRequest::default()
                })
                .await
                .expect("Scan")
                .into_inner();
            while progress.message().await.expect("progress").is_some() {}
        });
    }

    /// Every image with all that is known of it, by `StreamImages`.
    pub async fn all(&self) -> Vec<Image> {
        let mut stream = ImageServiceClient::new(self.channel().await)
            .stream_images(StreamImagesRequest {
                view: ImageView::Full.into(),
                ..StreamImagesRequest::default()
            })
            .await
            .expect("StreamImages")
            .into_inner();
        let mut images = Vec::new();
        while let Some(batch) = stream.message().await.expect("a batch") {
            images.extend(batch.images);
        }
        images
    }
}

/// Where an agent says that it listens.
pub fn addresses(process: &Process) -> Vec<String> {
    let output = process.output();
    output
        .lines()
        .filter_map(|line| line.strip_prefix("listening on "))
        .map(str::to_owned)
        .collect()
}

/// A runtime for the calls of one test.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

/// The agent's binary where `nobody` can reach it: the work tree may lie in a private directory.
fn readable_binary(dir: &Path) -> PathBuf {
    let copy = dir.join("sifter");
    crate::process::install("sifter", &copy);
    copy
}
