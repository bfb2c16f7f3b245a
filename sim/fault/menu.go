package fault

import "time"

// The longest anything waits for a silent peer here is Kafka's session of 6 s and the 10 s of a request:
// a short pause is below all timeouts, a long one above.
const (
	shortPause = 2500 * time.Millisecond
	longPause  = 7 * time.Second
	longest    = 12 * time.Second
	blink      = 50 * time.Millisecond
)

// jvmRest is how long a server that takes seconds to start is left alone.
const jvmRest = 12 * time.Second

// onNode are the faults of the product itself.
func onNode() []Choice {
	return []Choice{
		{Subject: Node, Kind: Kill, Weight: 10, Most: time.Second},
		{Subject: Node, Kind: Terminate, Weight: 4, Most: time.Second},
		{Subject: Node, Kind: Pause, Weight: 4, Least: blink, Most: shortPause},
		{Subject: Node, Kind: Pause, Weight: 1, Least: longPause, Most: longest},
	}
}

// onLink are the faults of any link.
func onLink(s Subject, weight int) []Choice {
	return []Choice{
		{Subject: s, Kind: Cut, Weight: 2 * weight, Most: 2 * time.Second},
		{Subject: s, Kind: Stall, Weight: weight, Least: blink, Most: 4 * time.Second},
		{Subject: s, Kind: StallUp, Weight: weight, Least: blink, Most: 4 * time.Second},
		{Subject: s, Kind: StallDown, Weight: weight, Least: blink, Most: 4 * time.Second},
	}
}

// EmbeddedMenu are the faults of a node with broker and log in its process: killing one kills all.
func EmbeddedMenu() []Choice {
	return append(onNode(), onLink(DeviceLink, 1)...)
}

// RealMenu are the faults of a node on Kafka, QuestDB and Mosquitto. Mosquitto is not killed: it answers
// from memory, and what that loses is its own (BrokerMenu).
func RealMenu() []Choice {
	menu := onNode()
	menu = append(menu,
		Choice{Subject: Kafka, Kind: Kill, Weight: 5, Most: 2 * time.Second, Rest: jvmRest},
		Choice{Subject: Kafka, Kind: Terminate, Weight: 2, Most: 2 * time.Second, Rest: jvmRest},
		Choice{Subject: Kafka, Kind: Pause, Weight: 2, Least: blink, Most: shortPause},
		Choice{Subject: Kafka, Kind: Pause, Weight: 1, Least: longPause, Most: longest, Rest: jvmRest},
		Choice{Subject: QuestDB, Kind: Kill, Weight: 4, Most: 4 * time.Second, Rest: jvmRest},
		Choice{Subject: QuestDB, Kind: Terminate, Weight: 1, Most: 4 * time.Second, Rest: jvmRest},
		Choice{Subject: QuestDB, Kind: Pause, Weight: 2, Least: blink, Most: longest},
		Choice{Subject: Mosquitto, Kind: Terminate, Weight: 3, Most: 2 * time.Second},
		Choice{Subject: Mosquitto, Kind: Pause, Weight: 3, Least: blink, Most: shortPause},
		Choice{Subject: KafkaLink, Kind: Unanswered, Weight: 5, Requests: 8},
		Choice{Subject: KafkaLink, Kind: Torn, Weight: 4, Requests: 8},
	)
	for _, s := range []Subject{DeviceLink, BrokerLink, KafkaLink, QuestDBLink} {
		menu = append(menu, onLink(s, 1)...)
	}
	return menu
}

// BrokerMenu kills Mosquitto, and nothing else.
func BrokerMenu() []Choice {
	return []Choice{{Subject: Mosquitto, Kind: Kill, Weight: 1, Most: 2 * time.Second}}
}
