// Package mqtt is the MQTT side of a node: it takes what devices publish towards their twins and
// acknowledges it only when it is durable.
//
// There are two doors with the same behaviour towards devices. [Client] subscribes to a real broker
// through a shared subscription; [Broker] is a broker itself, in process, for a node that was given
// none. Both deliver [host.Message]s into an [Inlet] and hold each one until its verdict is
// [host.Released]; any other verdict means that the door delivers it again.
//
// The package does not decode payloads, knows no twins, and decides nothing about ownership: the
// inlet does. It makes dead letters only of what no twin can take: a device id that is none, a
// payload over the limit, numbers of a reported patch that are no numbers.
//
// Concurrency: one goroutine reads a broker connection, one for each device of an embedded broker.
// Verdicts arrive from any goroutine and never wait for a socket.
package mqtt
