//! The operator against a real API server: etcd and kube-apiserver, objects as people write them, agents played by the
//! test.

#![expect(clippy::unwrap_used, reason = "tests")]

mod configs;
mod health;
mod kinds;
mod other_versions;
mod policies;
mod replicas;
mod world;
mod writes;

use world::World;

#[test]
fn the_operator_against_a_real_api_server() {
    tracing_subscriber::fmt()
        .with_env_filter("weir_operator=debug,kube_runtime=warn")
        .with_test_writer()
        .init();
    let server = weir_e2e::api_server::ApiServer::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(server.kubeconfig()).await;
        // The first replica leads from here on.
        let first = world.start("first").await;
        policies::a_policy_reaches_the_nodes(&world).await;
        policies::acknowledged_means_programmed(&world).await;
        policies::programmed_is_never_told_of_a_spec_that_no_node_has(&world).await;
        policies::a_policy_that_takes_a_name_has_a_status_of_its_own(&world).await;
        health::not_ready_is_not_dead(&world).await;
        health::a_leader_answers_over_http(&world, &first).await;
        writes::nothing_is_written_twice(&world, &first.metrics).await;
        writes::a_new_label_key_comes_in_order(&world).await;
        kinds::other_kinds_tell_their_status(&world).await;
        configs::every_setting_reaches_the_nodes_and_goes_with_its_config(&world).await;
        configs::configs_in_conflict_say_so(&world).await;
        other_versions::words_of_another_version_stop_nothing(&world).await;
        replicas::an_agent_that_is_cut_off_is_named(&world).await;
        replicas::another_replica_takes_over(&world, first).await;
    });
}
