package host

// MessageKind says which topic a device message came by.
type MessageKind uint8

// The topics a device publishes to.
const (
	Telemetry MessageKind = iota + 1
	Status
	Reported
)

// Message is one device message on its way to its twin. Device and Payload are immutable from
// Deliver on and are kept until Reply is called. Passed by value in batches; nothing in it is
// allocated per message by the host.
type Message struct {
	Kind        MessageKind
	Attempts    uint8  // how often it has been among the dead letters
	Numbered    bool   // Boot and Seq were given as MQTT 5 user properties (Reported only)
	Token       uint64 // names the message to Reply
	Device      []byte // checked: 1-128 bytes of [A-Za-z0-9._:@-]
	Payload     []byte
	ContentType string // as given, without parameters; empty: absent
	ReceivedAt  int64  // unix nanoseconds, stamped once by the first node
	Boot, Seq   uint64
	Topic       string // topic root of the door ("devices"), to name the source of a dead letter
	Reply       Reply
}

// Verdict is what became of a Message.
type Verdict uint8

// The verdicts.
const (
	Released Verdict = iota + 1 // its effect is durable: acknowledge it to the device
	NotOwner                    // this node does not own the partition (any more): route again
	Busy                        // mailbox full: route again
	Failed                      // could not be made durable; the door lets the device send it again
)

// Reply takes the verdicts of messages a door delivered. It is called exactly once for each token,
// from the partition's goroutine, and must not block. tokens is only valid during the call.
type Reply interface {
	Done(tokens []uint64, v Verdict)
}

// sourceTopic is the topic the message came by, for its dead letter.
func (m *Message) sourceTopic() string {
	names := [...]string{Telemetry: "telemetry", Status: "status", Reported: "reported"}
	return m.Topic + "/" + string(m.Device) + "/" + names[m.Kind]
}
