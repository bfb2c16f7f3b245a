package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	old "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// brokers are the configurations of a node with each kind of broker.
func brokers(t *testing.T) map[string]node.Config {
	t.Helper()
	s := nodetest.RealServices(t)
	all := map[string]node.Config{"embedded": nodetest.Embedded(t)}
	for name, url := range map[string]string{"mosquitto": s.MQTT, "hivemq": s.HiveMQ} {
		if url == "" {
			t.Fatalf("no address of %s: run make test", name)
		}
		cfg := nodetest.Embedded(t)
		cfg.MQTT, cfg.Group, cfg.MQTTRoot = []string{url}, nodetest.Unique("group"), nodetest.Unique("root")
		all[name] = cfg
	}
	return all
}

// TestCommands: what a device gets, what a caller gets, on each kind of broker.
func TestCommands(t *testing.T) {
	for name, cfg := range brokers(t) {
		t.Run(name, func(t *testing.T) {
			n := nodetest.Start(t, cfg)
			t.Run("MQTT 5", func(t *testing.T) { commandsOf5(t, n) })
			t.Run("MQTT 3.1.1", func(t *testing.T) { commandsOf311(t, n) })
			t.Run("offline", func(t *testing.T) { commandsOffline(t, n) })
		})
	}
}

func commandsOf5(t *testing.T, n *nodetest.Node) {
	d := newObedient(t, n, nodetest.Unique("new"))
	d.status(true)
	n.Await(d.ID, "online", (*doppelv1.Twin).GetOnline)
	body, err := structpb.NewValue(map[string]any{"speed": 3})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{
		Id: d.ID, Name: "set", Body: body, Timeout: durationpb.New(20 * time.Second), IdempotencyKey: "k1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := reply.GetBody().GetStructValue().GetFields()["you"].GetStringValue(); reply.GetStatus() != 201 || got != `{"speed":3}` {
		t.Errorf("reply %v", reply)
	}
	p := d.commands()[0]
	expiry := uint32(0)
	if p.Properties.MessageExpiry != nil {
		expiry = *p.Properties.MessageExpiry
	}
	if p.QoS != 1 || p.Retain || p.Properties.ContentType != "application/json" || p.Properties.ResponseTopic != p.Topic+"/reply" ||
		string(p.Properties.CorrelationData) != "key/k1" || expiry < 15 || expiry > 20 {
		t.Errorf("the device got %v with %v, expiry %d", p, p.Properties, expiry)
	}
	// Order under concurrency: calls begin one after another, and none is sent before the former is answered.
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "count", Body: structpb.NewNumberValue(float64(i))})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if d.overlapped() {
		t.Error("a command came before the one before it was answered")
	}
	if got := len(d.commands()); got != 21 {
		t.Errorf("%d commands reached the device, want 21", got)
	}
	_, err = n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "mute", Timeout: durationpb.New(300 * time.Millisecond)})
	wantReason(t, err, codes.DeadlineExceeded, "NO_REPLY")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = n.Twins().InvokeCommand(ctx, &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "mute"})
	wantReason(t, err, codes.Canceled, "")
	_, err = n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: nodetest.Unique("nobody"), Name: "ping"})
	wantReason(t, err, codes.NotFound, "UNKNOWN_TWIN")
}

func commandsOf311(t *testing.T, n *nodetest.Node) {
	id := nodetest.Unique("old")
	topic := func(level string) string { return n.Config.MQTTRoot + "/" + id + "/" + level }
	o := old.NewClientOptions().AddBroker(strings.Replace(n.Broker(), "mqtt://", "tcp://", 1)).SetClientID(nodetest.Unique("c")).SetProtocolVersion(4)
	cl := old.NewClient(o)
	done := func(token old.Token) {
		t.Helper()
		if !token.WaitTimeout(nodetest.Patience) || token.Error() != nil {
			t.Fatalf("3.1.1 client: %v", token.Error())
		}
	}
	done(cl.Connect())
	defer cl.Disconnect(0)
	done(cl.Subscribe(topic("commands/+"), 1, func(c old.Client, m old.Message) {
		c.Publish(m.Topic()+"/reply", 1, false, append([]byte("raw "), m.Payload()...))
	}))
	done(cl.Publish(topic("commands/ping/reply"), 1, true, "retained, and of long ago"))
	done(cl.Publish(topic("status"), 1, true, `{"online":true}`))
	n.Await(id, "online", (*doppelv1.Twin).GetOnline)
	// With the reply to this one the node has got the one of long ago, which nothing but its time tells from a reply.
	if _, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: id, Name: "first"}); err != nil {
		t.Fatal(err)
	}
	reply, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: id, Name: "ping", Body: structpb.NewBoolValue(true)})
	if err != nil {
		t.Fatal(err)
	}
	if reply.GetStatus() != 200 || reply.GetBody().GetStringValue() != "cmF3IHRydWU=" { // base64 of "raw true"
		t.Errorf("reply %v", reply)
	}
	done(cl.Publish(topic("commands/ping/reply"), 1, true, ""))
	done(cl.Publish(topic("status"), 1, true, ""))
}

func commandsOffline(t *testing.T, n *nodetest.Node) {
	d := newObedient(t, n, nodetest.Unique("away"))
	d.status(true)
	n.Await(d.ID, "online", (*doppelv1.Twin).GetOnline)
	d.status(false)
	n.Await(d.ID, "offline", func(t *doppelv1.Twin) bool { return !t.GetOnline() })
	_, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "ping"})
	wantReason(t, err, codes.FailedPrecondition, "DEVICE_OFFLINE")
	_, err = n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{
		Id: d.ID, Name: "ping", QueueIfOffline: true, Timeout: durationpb.New(200 * time.Millisecond),
	})
	wantReason(t, err, codes.DeadlineExceeded, "NOT_SENT_IN_TIME")
	var all sync.WaitGroup
	for range 3 { // with one key: it is one command
		all.Go(func() {
			reply, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "ping", QueueIfOffline: true, IdempotencyKey: "once"})
			if err != nil || reply.GetStatus() != 201 {
				t.Errorf("reply %v, error %v", reply, err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // they wait
	d.status(true)                     // here, as the replies may come before its acknowledgement
	all.Wait()
	if got := len(d.commands()); got != 1 {
		t.Errorf("%d commands reached the device, want 1", got)
	}
}

func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	got := ""
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if diff := cmp.Diff([]string{code.String(), reason}, []string{st.Code().String(), got}); diff != "" {
		t.Errorf("%s (-want +got)\n%s", st.Message(), diff)
	}
}

// obedient is a device that answers what it is told with status 201, a while later; nothing to "mute".
type obedient struct {
	*nodetest.Device
	t  *testing.T
	mu sync.Mutex
	in []*paho.Publish
	at []time.Time // of what came
	to []time.Time // of the answers
}

func newObedient(t *testing.T, n *nodetest.Node, id string) *obedient {
	t.Helper()
	d := &obedient{Device: n.Device(id), t: t}
	work := make(chan *paho.Publish, 100)
	var answering sync.WaitGroup
	over := make(chan struct{})
	answering.Go(func() {
		for {
			select {
			case p := <-work:
				d.answer(p)
			case <-over:
				return
			}
		}
	})
	stop := d.Client.AddOnPublishReceived(func(p paho.PublishReceived) (bool, error) {
		if !strings.Contains(p.Packet.Topic, "/commands/") {
			return false, nil
		}
		d.mu.Lock()
		d.in, d.at = append(d.in, p.Packet), append(d.at, time.Now())
		d.mu.Unlock()
		work <- p.Packet
		return true, nil
	})
	t.Cleanup(func() { stop(); close(over); answering.Wait() })
	sub := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: d.Topic("commands/+"), QoS: 1}}}
	if _, err := d.Client.Subscribe(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *obedient) answer(p *paho.Publish) {
	if strings.HasSuffix(p.Topic, "/mute") {
		return
	}
	d.mu.Lock()
	d.to = append(d.to, time.Now())
	d.mu.Unlock()
	props := &paho.PublishProperties{CorrelationData: p.Properties.CorrelationData}
	props.User.Add("status", "201")
	body := fmt.Sprintf(`{"you":%q}`, p.Payload)
	if _, err := d.Client.Publish(context.WithoutCancel(d.t.Context()), &paho.Publish{
		Topic: p.Properties.ResponseTopic, QoS: 1, Payload: []byte(body), Properties: props,
	}); err != nil {
		d.t.Error(err)
	}
}

func (d *obedient) status(online bool) {
	d.Send(&paho.Publish{Topic: d.Topic("status"), Payload: fmt.Appendf(nil, `{"online":%t}`, online)})
}

func (d *obedient) commands() []*paho.Publish {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*paho.Publish(nil), d.in...)
}

// overlapped says whether a command came before the one before it was answered.
func (d *obedient) overlapped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 1; i < len(d.at) && i <= len(d.to); i++ {
		if d.at[i].Before(d.to[i-1]) {
			return true
		}
	}
	return false
}

// TestCommandThroughAnotherNode: any node takes a command; the one that serves the device sends it.
func TestCommandThroughAnotherNode(t *testing.T) {
	cfg := nodetest.Real(t)
	other := nodetest.Real(t)
	other.Group, other.MQTTRoot, other.TopicPrefix = cfg.Group, cfg.MQTTRoot, cfg.TopicPrefix
	nodes := []*nodetest.Node{nodetest.Start(t, cfg), nodetest.Start(t, other)}
	served := make(map[string]bool)
	for i := range 32 { // of enough devices, so that both serve some
		d := newObedient(t, nodes[0], nodetest.Unique(fmt.Sprint("d", i)))
		d.status(true)
		nodes[0].Await(d.ID, "online", (*doppelv1.Twin).GetOnline)
		served[nodes[0].Twin(d.ID).GetOwner()] = true
		for _, n := range nodes {
			reply, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "ping"})
			if err != nil || reply.GetStatus() != 201 {
				t.Errorf("through %s: reply %v, error %v", n.Config.NodeID, reply, err)
			}
		}
		if got := len(d.commands()); got != 2 {
			t.Errorf("%d commands reached the device, want 2", got)
		}
		d.status(false)
		nodes[0].Await(d.ID, "offline", func(t *doppelv1.Twin) bool { return !t.GetOnline() })
		for _, n := range nodes {
			_, err := n.Twins().InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: d.ID, Name: "ping"})
			wantReason(t, err, codes.FailedPrecondition, "DEVICE_OFFLINE")
		}
		if len(served) == 2 && i > 3 {
			return
		}
	}
	t.Errorf("all devices were served by one node: %v", served)
}
