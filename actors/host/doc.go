// Package host runs the twins that this node owns. A partition is one goroutine with one bounded
// mailbox: it decodes messages, steps twins, writes their changelog and, when a record is durable,
// lets its effects out (PUBACK, alerts, rows, watchers), strictly in the order of the log.
//
// It does not know a broker, a database or the cluster: ports.go says what it needs of them.
//
// Concurrency: everything of a partition belongs to its goroutine. Others reach it through the
// mailbox only. See DESIGN.md for the rules of protocol.md that each file carries.
package host
