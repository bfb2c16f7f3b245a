// Package world plays whole clusters in one goroutine on a virtual clock, decided by one seed: real twins,
// hosts, claims, peers and movers of two or three nodes over a log, a broker and a network in memory, in
// which everything that can be late, lost, doubled, cut, paused or crashed is. A judge folds the log beside
// them as it is written and holds against it, after every step, what the nodes let out.
//
// What is real: actors/host with all it stands on, cluster/router, peers, handover and placement. What is a
// model of it: the log, the Kafka group and doppel.nodes, with the rules of cluster/registry (group.go), the
// broker and its sessions (broker.go), and the door that takes messages from it (gateway.go).
//
// It starts no process, opens no connection and reads no clock. A schedule is played again by its seed
// alone; tests break one rule of the protocol each and must be caught.
package world
