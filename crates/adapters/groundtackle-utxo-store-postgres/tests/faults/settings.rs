//! Settings, certificates and formats: what is wrong is refused, with the way out.

use super::*;

/// A store of the first version is migrated with what it holds, unless that is not wanted.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_store_is_migrated() {
    let place = Place::new();
    let store = PostgresUtxoStore::open(place.config()).await.unwrap();
    let coins = coins(&store, 1, 3).await;
    let before = store.digest().await.unwrap();
    drop(store);
    // What the second migration makes goes.
    let admin = client(&server().url()).await;
    let schema = place.schema();
    let old = format!(
        "DROP INDEX {schema}.outputs_coinbase; DROP TABLE {schema}.reservations;
         UPDATE {schema}.chain SET schema_version = 1"
    );
    admin.batch_execute(&old).await.unwrap();
    let error = refused(
        place.config().with_create(false),
        "set `create` to migrate it",
    )
    .await;
    assert_eq!(error.retryability(), Retryability::Permanent);
    // Two at once migrate it once.
    let (one, other) = tokio::join!(
        PostgresUtxoStore::open(place.config()),
        PostgresUtxoStore::open(place.config())
    );
    let (store, other) = (one.unwrap(), other.unwrap());
    assert_eq!(store.digest().await.unwrap(), before);
    spend(&store, spender(2, coins[0])).await.unwrap();
    spend(&other, spender(3, coins[1])).await.unwrap();
    assert_sound(&store).await;
    // It asks the table that is new.
    store.coinbase_outputs().tidy().await.unwrap();
    let index =
        "SELECT count(*) FROM pg_indexes WHERE schemaname = $1 AND indexname = 'outputs_coinbase'";
    let index = admin.query_one(index, &[&schema]).await.unwrap();
    assert_eq!(index.get::<_, i64>(0), 1);
    drop((store, other));

    let newer = format!("UPDATE {schema}.chain SET schema_version = schema_version + 1");
    admin.batch_execute(&newer).await.unwrap();
    let error = refused(place.config(), "use a newer version").await;
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                found: 3,
                supported: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_name_the_way_out() {
    let server = Postgres::start(PostgresOptions {
        password: Some(PASSWORD.into()),
        ..PostgresOptions::default()
    });
    let good = config(&server);
    let store = PostgresUtxoStore::open(good.clone()).await.unwrap();
    assert!(!format!("{good:?} {store:?}").contains(PASSWORD));

    for url in [
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:notaport/postgres"),
        format!("postgres://postgres:{PASSWORD}@127.0.0.1/postgres?sslmode={PASSWORD}"),
        PASSWORD.into(),
        String::new(),
        "postgres:///postgres".into(),
    ] {
        refused(
            good.clone().with_url(url.into()),
            "postgres://user:password@host",
        )
        .await;
    }
    let wrong = Some(Secret::from("wrong"));
    let error = refused(good.clone().with_password(wrong), "pg_hba.conf").await;
    assert_eq!(error.retryability(), Retryability::Permanent);
    let elsewhere = format!(
        "postgres://postgres:{PASSWORD}@127.0.0.1:{}/nowhere",
        server.port()
    );
    refused(
        good.clone().with_url(elsewhere.into()),
        "create the database first",
    )
    .await;
    refused(good.clone().with_tls(Tls::Verify), "`tls` off").await;
    let file = Some("/nowhere.pem".into());
    refused(
        good.clone()
            .with_tls(Tls::Verify)
            .with_tls_authorities(file),
        "PEM",
    )
    .await;
    let nobody = server.url_at(1);
    let error = refused(good.clone().with_url(nobody.into()), "connect").await;
    assert_eq!(error.retryability(), Retryability::Transient);
    refused(good.clone().with_allow_unsafe_durability(false), "fsync").await;
    let error = refused(
        good.clone().with_schema("other".into()).with_create(false),
        "other",
    )
    .await;
    assert!(matches!(error, Error::NotFound { .. }));
    let rule = groundtackle_utxo_store::UnspendableRule::FalseReturn;
    refused(good.clone().with_unspendable(rule), "fixed").await;

    let admin = client(&server.url()).await;
    admin
        .batch_execute(&format!("CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'"))
        .await
        .unwrap();
    let guest = server.url().replace("postgres:s3", "guest:s3");
    refused(
        good.clone()
            .with_url(guest.into())
            .with_schema("theirs".into()),
        "rights",
    )
    .await;

    admin
        .batch_execute("UPDATE groundtackle.chain SET schema_version = 99")
        .await
        .unwrap();
    let error = refused(good.clone(), "use a newer version").await;
    assert!(matches!(error, Error::NewerFormat { found: 99, .. }));
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(
        !health.ready && health.reasons[0].contains("99"),
        "{health:?}"
    );
}

/// A config reads from any serde format, refuses unknown keys, and does not show its secrets.
#[test]
fn a_config_reads_as_text() {
    let text = format!(
        r#"{{"url": "postgres://u:{PASSWORD}@h/d", "password": "{PASSWORD}", "tls": "off", "lock_timeout": "3s"}}"#
    );
    let config: PostgresUtxoStoreConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(config.lock_timeout, Duration::from_secs(3));
    assert_eq!(config.tls, Tls::Off);
    assert_eq!(config.password, Some(PASSWORD.into()));
    assert!(!format!("{config:?}").contains(PASSWORD));
    assert!(serde_json::from_str::<PostgresUtxoStoreConfig>(r#"{"ulr": ""}"#).is_err());
    assert_eq!(PostgresUtxoStoreConfig::default().tls, Tls::Verify);
}

/// A certificate of the authority that the config names, for the name in the URL, and no other; whatever
/// the URL's `sslmode` says.
#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_authority_and_name() {
    let made = Certificates::new();
    let server = Postgres::start(PostgresOptions {
        password: Some(PASSWORD.into()),
        tls: Some(made.server_and_key()),
        ..PostgresOptions::default()
    });
    let good = config(&server)
        .with_tls(Tls::Verify)
        .with_tls_authorities(Some(made.authority()));
    let store = PostgresUtxoStore::open(good.clone()).await.unwrap();
    let coin = coins(&store, 1, 1).await[0];
    spend(&store, spender(2, coin)).await.unwrap();
    let admin = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
                 WHERE application_name = 'groundtackle' AND NOT ssl";
    let row = client(&server.url()).await.query_one(admin, &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0);

    let other = Certificates::new();
    let other = good.clone().with_tls_authorities(Some(other.authority()));
    let wrong_name = server.url().replace("127.0.0.1", "localhost");
    let unsure = server.url() + "?sslmode=disable";
    for (config, says) in [
        (other, "invalid peer certificate"),
        (
            good.clone().with_tls_authorities(None),
            "invalid peer certificate",
        ),
        (good.clone().with_url(wrong_name.into()), "NotValidForName"),
    ] {
        let error = refused(config, says).await;
        assert!(error.to_string().contains("tls_authorities"), "{error}");
        assert_eq!(error.retryability(), Retryability::Permanent, "{error:?}");
    }
    PostgresUtxoStore::open(good.clone().with_url(unsure.into()))
        .await
        .unwrap();
    // One that offers no TLS gets no password either.
    let plain = Postgres::start(PostgresOptions::default());
    for mode in ["", "?sslmode=disable", "?sslmode=prefer"] {
        let url = plain.url() + mode;
        refused(
            good.clone().with_url(url.into()),
            "server does not support TLS",
        )
        .await;
    }
}
