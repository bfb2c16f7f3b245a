package questdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// These tests drop tables and cut connections, so they run a QuestDB of their own: the first process
// starts it, runs itself once more with its address, and stops it whatever became of the tests.
const own = "DOPPEL_TEST_QUESTDB_OWN"

func TestMain(m *testing.M) {
	if os.Getenv(own) != "" {
		os.Exit(m.Run())
	}
	if err := underServices(); err != nil {
		if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
			os.Exit(ee.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "start QuestDB:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func underServices() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	script, err := filepath.Abs("../../deploy/services/services")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), script, append([]string{"with", "questdb", "--", self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), own+"=1", "QDB_DEV_MODE_ENABLED=true") // QuestDB suspends tables on demand then
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func serverURL(t testing.TB) string {
	t.Helper()
	u := os.Getenv("DOPPEL_TEST_QUESTDB")
	if u == "" {
		t.Fatal("DOPPEL_TEST_QUESTDB is not set though " + own + " is")
	}
	return u
}

// database gives SQL on the server, with none of our tables there.
func database(t testing.TB) *sqlClient {
	t.Helper()
	u, err := url.Parse(serverURL(t))
	if err != nil {
		t.Fatal(err)
	}
	db := newSQLClient(u, nil, 30*time.Second)
	for _, table := range []string{"telemetry", "telemetry_long", "alerts", "metric_columns"} {
		run(t, db, "DROP TABLE IF EXISTS "+table)
	}
	return db
}

func run(t testing.TB, db *sqlClient, stmt string) [][]any {
	t.Helper()
	rows, err := db.query(t.Context(), stmt)
	if err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
	return rows
}

// patience is how long a machine with other work may take for what tests wait for.
const patience = 2 * time.Minute

// eventually polls cond until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// want polls stmt until its rows print as want.
func want(t testing.TB, db *sqlClient, stmt, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		rows, err := db.query(t.Context(), stmt)
		if got = fmt.Sprint(rows); err != nil {
			got = err.Error()
		}
		if got == want {
			return
		}
	}
	t.Fatalf("%s:\n got %s\nwant %s", stmt, got, want)
}

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
