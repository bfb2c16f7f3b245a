// Package rules holds tests of the tests: a partition's host over a log in memory whose every step a
// seed decides, a judge that folds that log beside it, and hosts that break one rule of the protocol
// each, which the judge must catch.
//
// It starts no process and opens no connection (sim/fault does), and nothing in it is for use by other
// packages. Breaking a rule is done by what stands between the host and its ports, never by a switch
// in the host.
//
// A world runs in a bubble of testing/synctest: time is virtual, and the driver acts only when every
// goroutine waits. All but the tests' driver is the host's.
package rules
