package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/certs/certstest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	readerToken = "the-token-of-the-reader"
	adminToken  = "the-token-of-the-admin"
)

// locked puts locks on every door of a node.
func locked(t *testing.T, cfg *node.Config, ca *certstest.Authority) certs.Files {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("pump-1"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	f := ca.Node(t)
	cfg.TLSCert, cfg.TLSKey, cfg.TLSCA = f.Cert, f.Key, f.CA
	cfg.AuthTokens = write("tokens.yaml", "tokens:\n- {name: rita, token: "+readerToken+", role: reader}\n- {name: ada, token: "+adminToken+", role: admin}\n"+
		"certificates:\n- {name: ops, role: admin}\n")
	cfg.MQTTUsers = write("users.yaml", fmt.Sprintf("users:\n- {name: pump-1, password: %q}\n", hash))
	return f
}

// dial comes to a gRPC door.
func dial(t *testing.T, address string, who auth.Client) *grpc.ClientConn {
	t.Helper()
	opts, err := who.DialOptions(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func getTwin(t *testing.T, conn *grpc.ClientConn, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := doppelv1.NewTwinServiceClient(conn).GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
	return err
}

// TestLockedNode: every door of a node asks who comes, and lets in who may.
func TestLockedNode(t *testing.T) {
	t.Parallel()
	ca, others := certstest.New(t), certstest.New(t)
	cfg := nodetest.Embedded(t)
	f := locked(t, &cfg, ca)
	cfg.GRPCAddr, cfg.HTTPAddr, cfg.MQTTAddr = "0.0.0.0:0", "0.0.0.0:0", "0.0.0.0:0" // allowed: all is locked
	n := nodetest.Start(t, cfg)
	at := func(address string) string {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return "127.0.0.1:" + port
	}
	grpcAddr, httpAddr, mqttAddr, kafkaAddr := at(n.Addresses.GRPC), at(n.Addresses.HTTP), at(n.Addresses.MQTT), at(n.Addresses.Kafka)
	trust := certs.Files{CA: ca.File}

	t.Run("mqtt", func(t *testing.T) {
		nc, err := tls.Dial("tcp", mqttAddr, certstest.Config(t, trust))
		if err != nil {
			t.Fatal(err)
		}
		c := paho.NewClient(paho.ClientConfig{Conn: nc})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Connect(ctx, &paho.Connect{ClientID: "pump-1", CleanStart: true, UsernameFlag: true, Username: "pump-1", PasswordFlag: true, Password: []byte("pump-1")}); err != nil {
			t.Fatal(err)
		}
		for topic, want := range map[string]byte{"devices/pump-1/telemetry": 0, "devices/pump-2/telemetry": 0x87} {
			if r, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(`{"seq":1,"metrics":{"t":1}}`)}); r == nil || r.ReasonCode != want {
				t.Errorf("%s: got %v, %v", topic, r, err)
			}
		}
		_ = c.Disconnect(&paho.Disconnect{})
		<-c.Done()
	})
	t.Run("grpc", func(t *testing.T) {
		for _, tc := range []struct {
			name string
			who  auth.Client
			want codes.Code
		}{
			{"reader", auth.Client{Files: trust, Token: readerToken}, codes.OK},
			{"client certificate", auth.Client{Files: ca.Client(t, "ops")}, codes.OK},
			{"nobody", auth.Client{Files: trust}, codes.Unauthenticated},
			{"certificate of nobody", auth.Client{Files: ca.Client(t, "pump-1")}, codes.Unauthenticated},
			{"plain text", auth.Client{Token: readerToken}, codes.Unavailable},
			{"who trusts others", auth.Client{Files: certs.Files{CA: others.File}, Token: readerToken}, codes.Unavailable},
		} {
			if err := getTwin(t, dial(t, grpcAddr, tc.who), "pump-1"); status.Code(err) != tc.want {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		}
		_, err := doppelv1.NewTwinServiceClient(dial(t, grpcAddr, auth.Client{Files: trust, Token: readerToken})).ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "pump-1"})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("a reader resets: %v", err)
		}
	})
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: certstest.Config(t, trust), ForceAttemptHTTP2: true}}
	t.Cleanup(client.CloseIdleConnections)
	t.Run("http", func(t *testing.T) {
		for _, tc := range []struct {
			path, token string
			want        int
		}{
			{"/livez", "", 200},
			{"/readyz", "", 200},
			{"/", "", 200},
			{"/metrics", "", 401},
			{"/metrics", readerToken, 200},
			{"/v1/twins/pump-1", "", 401},
			{"/v1/twins/pump-1", readerToken, 200},
			{"/v1/twins/pump-1", "wrong", 401},
			{"/v1/twins:watch", "", 401},
			{"/v1/alerts:watch", "wrong", 401},
		} {
			if got, body := ask(t, client, "GET", "https://"+httpAddr+tc.path, tc.token, "", nil); got != tc.want {
				t.Errorf("%s with %q: got %d %s, want %d", tc.path, tc.token, got, body, tc.want)
			}
		}
		if got, _ := ask(t, client, "POST", "https://"+httpAddr+"/v1/twins/pump-1:reset", readerToken, "application/json", []byte("{}")); got != 403 {
			t.Errorf("a reader resets: %d", got)
		}
	})
	t.Run("ndjson", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+httpAddr+"/v1/twins:watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+readerToken)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var line struct{ Snapshot struct{ ID string } }
		if err := json.NewDecoder(resp.Body).Decode(&line); err != nil || line.Snapshot.ID != "pump-1" {
			t.Errorf("got %+v, %v", line, err)
		}
	})
	t.Run("grpc-web", func(t *testing.T) {
		body, err := proto.Marshal(&doppelv1.GetTwinRequest{Id: "pump-1"})
		if err != nil {
			t.Fatal(err)
		}
		frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
		for token, want := range map[string]string{"": "16", readerToken: "0"} {
			_, got := ask(t, client, "POST", "https://"+httpAddr+"/doppel.v1.TwinService/GetTwin", token, "application/grpc-web+proto", frame)
			if !strings.Contains(strings.ToLower(got), "grpc-status:"+want) && !strings.Contains(strings.ToLower(got), "grpc-status: "+want) {
				t.Errorf("with %q: got %q, want status %s", token, got, want)
			}
		}
	})
	t.Run("kafka and the record of writes", func(t *testing.T) {
		if _, err := doppelv1.NewTwinServiceClient(dial(t, grpcAddr, auth.Client{Files: trust, Token: adminToken})).ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "pump-1"}); err != nil {
			t.Fatal(err)
		}
		consume := func(f certs.Files) (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			k, err := kgo.NewClient(kgo.SeedBrokers(kafkaAddr), kgo.DialTLSConfig(certstest.Config(t, f)), kgo.ConsumeTopics(cfg.TopicPrefix+"audit"),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			if err != nil {
				return "", err
			}
			defer k.Close()
			if err := k.Ping(ctx); err != nil {
				return "", err
			}
			var all strings.Builder
			for ctx.Err() == nil && !strings.Contains(all.String(), `"who":"ada"`) {
				for _, r := range k.PollFetches(ctx).Records() {
					all.Write(r.Value)
				}
			}
			return all.String(), ctx.Err()
		}
		got, err := consume(ca.Client(t, "ops"))
		if err != nil || !strings.Contains(got, `"resource":"pump-1"`) || !strings.Contains(got, `"who":"rita"`) || !strings.Contains(got, `"code":"PermissionDenied"`) {
			t.Errorf("got %s, %v", got, err)
		}
		for name, f := range map[string]certs.Files{"a device": ca.Client(t, "pump-1"), "nobody": trust} {
			if _, err := consume(f); err == nil {
				t.Errorf("%s reads the log", name)
			}
		}
	})
	t.Run("renewal", func(t *testing.T) {
		serial := func() string {
			c, err := tls.Dial("tcp", grpcAddr, func() *tls.Config { c := certstest.Config(t, trust); c.NextProtos = []string{"h2"}; return c }())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		before := serial()
		ca.Renew(t, f)
		if !nodetest.Poll(func() bool { return serial() != before }) {
			t.Error("the new certificate is not shown")
		}
	})
}

func ask(t *testing.T, c *http.Client, method, url, token, contentType string, body []byte) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, fmt.Sprintf("grpc-status:%s %s", resp.Header.Get("Grpc-Status"), text)
}

// TestLockedCluster: nodes with certificates of one authority are a cluster, and any of them answers; nobody
// else is listened to at the node door: not in plain text, not with a device's certificate, not with one of
// another authority.
func TestLockedCluster(t *testing.T) {
	t.Parallel()
	ca, others := certstest.New(t), certstest.New(t)
	first := nodetest.Real(t)
	first.Partitions, first.QuestDB = 8, ""
	second := first
	second.NodeID, second.DataDir = nodetest.Unique("node"), t.TempDir()
	locked(t, &first, ca)
	locked(t, &second, ca)
	a, b := nodetest.Start(t, first), nodetest.Start(t, second)
	who := auth.Client{Files: certs.Files{CA: ca.File}, Token: adminToken}
	clients := []*grpc.ClientConn{dial(t, a.Addresses.GRPC, who), dial(t, b.Addresses.GRPC, who)}
	shares := func(conn *grpc.ClientConn) bool {
		s, err := doppelv1.NewFleetServiceClient(conn).GetStatus(t.Context(), &doppelv1.GetStatusRequest{})
		serving := 0
		for _, n := range s.GetNodes() {
			if n.GetPartitions() == 4 {
				serving++
			}
		}
		return err == nil && serving == 2
	}
	for i, conn := range clients {
		if !nodetest.Poll(func() bool { return shares(conn) }) {
			t.Fatalf("node %d does not see both nodes with half of the partitions each", i)
		}
	}
	for i := range 16 {
		d := a.Device(nodetest.Unique("device"))
		d.Telemetry(fmt.Sprintf(`{"seq":%d,"metrics":{"t":1}}`, i+1))
		for j, conn := range clients {
			var err error
			if !nodetest.Poll(func() bool { err = getTwin(t, conn, d.ID); return err == nil }) {
				t.Fatalf("node %d does not have %s: %v", j, d.ID, err)
			}
		}
	}
	for name, tc := range map[string]struct {
		creds credentials.TransportCredentials
		ok    bool
	}{
		"a node":                             {credentials.NewTLS(certstest.Config(t, ca.Node(t))), true},
		"plain text":                         {insecure.NewCredentials(), false},
		"no certificate":                     {credentials.NewTLS(certstest.Config(t, certs.Files{CA: ca.File})), false},
		"a device":                           {credentials.NewTLS(certstest.Config(t, ca.Client(t, "pump-1"))), false},
		"a node of another cluster":          {credentials.NewTLS(foreign(t, others, ca)), false},
		"a node that trusts another cluster": {credentials.NewTLS(foreign(t, ca, others)), false},
	} {
		conn, err := grpc.NewClient(a.Addresses.Node, grpc.WithTransportCredentials(tc.creds))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = doppelv1.NewQueryServiceClient(conn).ReadStatus(ctx, &doppelv1.ReadStatusRequest{})
		cancel()
		if ok := err == nil; ok != tc.ok || !tc.ok && status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		_ = conn.Close()
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x", "y")
	if _, err := doppelv1.NewFleetServiceClient(dial(t, b.Addresses.GRPC, auth.Client{Files: certs.Files{CA: ca.File}})).GetStatus(ctx, &doppelv1.GetStatusRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stranger asks for the status: %v", err)
	}
}

// foreign has a certificate of one authority and trusts another.
func foreign(t *testing.T, by, trusts *certstest.Authority) *tls.Config {
	t.Helper()
	f := by.Node(t)
	f.CA = trusts.File
	return certstest.Config(t, f)
}
