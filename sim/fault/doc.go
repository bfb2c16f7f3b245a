// Package fault pulls plugs. It runs the product and the servers around it as real processes, loads them
// with a fleet that repeats and swaps messages, and meanwhile kills, pauses and stops them and cuts the
// links between them, by a schedule that follows from a seed. When everything has come to rest it judges:
// nothing acknowledged lost, nothing twice, the state that of an uninterrupted fold of the log, alerts and
// rows complete, accounts balanced.
//
// It does not judge speed, and it does not reproduce timing: the same seed gives the same schedule and the
// same devices, not the same interleaving. A round belongs to one goroutine; what it starts, processes
// included, ends with it.
package fault
