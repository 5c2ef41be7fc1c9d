//! Taking the volume, and what to say when it cannot be had.

use pg_quorum_client::pgdata::{self, ComputeIdentity, Failure, Result};
use pg_quorum_client::{
    ClientConfig, CreateError, TakeError, TakeRequest, Taken, Timeouts, Transport, create_volume, take_volume,
};
use pg_quorum_tls::{Tls, TlsError};
use pg_quorum_token::TokenFile;
use pg_quorum_types::{Owner, VolumeId};

use super::AttachSettings;
use super::report::Reporter;

/// Who this directory is, and the volume it holds now.
pub struct Held {
    pub identity: ComputeIdentity,
    pub config: ClientConfig,
    pub taken: Taken,
}

/// Takes the volume under a new epoch; makes it if the nodes have none and this directory is to be imported.
pub async fn take(settings: &AttachSettings, system_identifier: u64, reporter: &Reporter) -> Result<Held> {
    let identity = load_identity(settings)?;
    let is_forced = pgdata::is_forced(&settings.pgdata);
    if let Some(by) = identity.fenced_by.as_ref().filter(|_| !is_forced) {
        return Err(superseded(settings, &by.to_string()));
    }
    let token = settings.token.clone().map(TokenFile::new);
    let config = ClientConfig {
        nodes: settings.nodes.clone(),
        volume: settings
            .volume
            .or(identity.volume)
            .or_else(|| volume_of(token.as_ref(), reporter)),
        transport: Transport {
            timeouts: Timeouts {
                quorum: settings.patience,
                ..Timeouts::default()
            },
            tls: settings.tls.clone().map(Tls::load).transpose().map_err(no_tls)?,
            token,
        },
    };
    let request = TakeRequest {
        owner: Owner {
            compute: identity.compute,
            description: describe(settings),
        },
        last_held_epoch: identity.last_held_epoch,
        force: is_forced,
        expected_system_identifier: Some(system_identifier),
    };
    let progress = |text: &str| reporter.log(text);
    let mut taken = take_volume(&config, request.clone(), &progress).await;
    if let Err(TakeError::NoVolume { .. }) = &taken {
        if let Some(volume) = identity.volume.filter(|_| is_attached_directory(settings)) {
            return Err(Failure::new(format!("the storage nodes keep no volume, this directory belongs to volume {volume}"))
                .detail("Nothing was changed.")
                .hint("Check the addresses in pg_quorum.nodes. The files of this directory are a cache with holes and cannot be imported."));
        }
        create_volume(&config, system_identifier, &progress)
            .await
            .map_err(|error| not_made(&error))?;
        taken = take_volume(&config, request, &progress).await;
    }
    match taken {
        Ok(taken) => Ok(Held {
            identity,
            config,
            taken,
        }),
        Err(error) => Err(explain(settings, &error)),
    }
}

/// Whether this directory's files are a cache already: it must never be imported.
pub fn is_attached_directory(settings: &AttachSettings) -> bool {
    matches!(pgdata::load_attachment(&settings.pgdata), Ok(Some(_)) | Err(_))
}

fn load_identity(settings: &AttachSettings) -> Result<ComputeIdentity> {
    let failed = |error: pgdata::PgdataError| Failure::new(error.to_string());
    if let Some(identity) = ComputeIdentity::load(&settings.pgdata).map_err(failed)? {
        return Ok(identity);
    }
    let identity = ComputeIdentity::new(None);
    identity.save(&settings.pgdata).map_err(failed)?;
    Ok(identity)
}

/// A volume that is to be made is the one that the token is for.
fn volume_of(token: Option<&TokenFile>, reporter: &Reporter) -> Option<VolumeId> {
    let volume = token?.volume();
    volume.inspect_err(|error| reporter.log(error.to_string())).ok()
}

fn no_tls(error: TlsError) -> Failure {
    Failure::new(format!("cannot speak TLS with the storage nodes: {error}"))
        .hint("Check pg_quorum.tls_ca_file, pg_quorum.tls_cert_file and pg_quorum.tls_key_file; the server's account must be able to read the files.")
}

fn not_made(error: &CreateError) -> Failure {
    match error {
        CreateError::Config(_) | CreateError::NotSix(_) => wrong_nodes(error),
        CreateError::NotReady(_) | CreateError::SameNode(_) => {
            Failure::new(format!("could not make the volume: {error}"))
                .hint("A volume is made of six nodes that belong to none. Check them, and the addresses in pg_quorum.nodes.")
        }
    }
}

fn wrong_nodes(error: &impl std::fmt::Display) -> Failure {
    Failure::new(format!("setting pg_quorum.nodes cannot be used: {error}"))
        .hint("Name the six storage nodes: pg_quorum.nodes = 'host:port,host:port,…'")
}

/// What a person needs to find this server.
fn describe(settings: &AttachSettings) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "{}:{} port {}",
        host.trim(),
        settings.pgdata.display(),
        settings.port
    )
}

fn superseded(settings: &AttachSettings, by: &str) -> Failure {
    Failure::new("another compute has taken the volume since this one held it")
        .detail(format!("Now {by}."))
        .hint(format!(
            "Connect to that server. To take the volume back by force: quorumctl failover -D {} --force",
            settings.pgdata.display()
        ))
}

fn explain(settings: &AttachSettings, error: &TakeError) -> Failure {
    match error {
        TakeError::Config(error) => wrong_nodes(error),
        TakeError::NoVolume { .. } => Failure::new(error.to_string()),
        TakeError::OtherVolume { .. } | TakeError::SeveralVolumes(_) => Failure::new(error.to_string())
            .hint("Check the addresses in pg_quorum.nodes and pg_quorum.volume."),
        TakeError::OtherCluster { .. } => Failure::new(error.to_string())
            .hint("One set of storage nodes keeps one cluster. Use other nodes, or `quorumctl compute create` for a directory of theirs."),
        TakeError::NoQuorum { problems } => Failure::new("fewer than four of the six storage nodes can take part")
            .detail(problems.join("\n"))
            .hint("Start the storage nodes, or correct pg_quorum.nodes, then start again."),
        TakeError::OwnerAlive { owner } => Failure::new(format!("the volume is in use by {owner}"))
            .detail("That server is alive: it has renewed its lease.")
            .hint(format!(
                "Stop it first. To take the volume from it by force: quorumctl failover -D {} --force",
                settings.pgdata.display()
            )),
        TakeError::Superseded { by } => superseded(settings, &by.to_string()),
        TakeError::Contended { .. } | TakeError::Contradiction(_) => Failure::new(error.to_string()),
    }
}
