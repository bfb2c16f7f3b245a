package mqtt

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// Inlet takes messages towards their owners. Deliver may block: that is the back-pressure. It takes
// msgs by value and keeps neither the slice; Device and Payload stay untouched afterwards. Every
// message gets exactly one Reply.Done, possibly before Deliver returns. An error means that some of
// the messages were not taken; the door delivers all without a verdict again.
type Inlet interface {
	Deliver(ctx context.Context, msgs []host.Message) error
}

// Refuser stores the dead letters a door must make itself. done is called exactly once, possibly
// before Refuse returns; with an error the door refuses the message again later.
type Refuser interface {
	Refuse(ctx context.Context, d host.DeadLetter, done func(error))
}

// Publisher sends messages to devices.
type Publisher interface {
	// Publish returns when the broker has taken the message: for QoS 1 and 2 acknowledged, for
	// QoS 0 written. props may be nil.
	Publish(ctx context.Context, topic string, qos byte, retain bool, payload []byte, props *Properties) error
}

// Properties are the MQTT 5 properties of a message to a device. Zero fields are not sent.
type Properties struct {
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	Expiry          time.Duration // rounded up to whole seconds
	User            []UserProperty
}

// UserProperty is one MQTT 5 user property.
type UserProperty struct{ Key, Value string }

// Rejecter tells a device what was refused. Rejected never blocks and may say nothing: what it does
// say is limited per device and in all.
type Rejecter interface {
	Rejected(device string, reason twin.Reason, detail string)
}

// Observer times the two ends of a message's way through a door. Nil fields are not called; they are
// called from the door's hot paths and must not block.
type Observer struct {
	// Received: n messages were read, parsed and handed to the inlet in this time.
	Received func(n int, took time.Duration)
	// Acked: acknowledgements were written; the oldest of them had come in so long ago.
	Acked func(age time.Duration)
}

func (o Observer) received(n int, took time.Duration) {
	if o.Received != nil {
		o.Received(n, took)
	}
}

func (o Observer) acked(age time.Duration) {
	if o.Acked != nil {
		o.Acked(age)
	}
}
