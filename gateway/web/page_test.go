package web

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const mac = "aa:bb:cc:dd:ee:ff"

// pump is a twin as a simulated pump would be at step n.
func pump(id string, n int, temperature float64) *doppelv1.Twin {
	now := timestamppb.Now()
	metric := func(v, mean, stddev float64) *doppelv1.Metric {
		z := (v - mean) / stddev
		return &doppelv1.Metric{
			Value: v, Time: now, Count: 512, Mean: mean, Stddev: stddev, Min: mean - 3*stddev, Max: mean + 3*stddev,
			Z: new(z), Score: new(z),
		}
	}
	return &doppelv1.Twin{
		Id: id, Version: uint64(n), Boot: 3, Seq: uint64(n), Online: true, LastSeen: now, CreateTime: timestamppb.New(apitest.Epoch()),
		Digest: 0x8f3a_0c77_1be2_94d5, SetDigest: math.MaxUint64,
		Tags: map[string]string{"site": "brno", "line": "3"},
		Metrics: map[string]*doppelv1.Metric{
			"temperature": metric(temperature, 21.5+math.Sin(float64(n)/40), 0.6),
			"vibration":   metric(0.02+0.001*math.Sin(float64(n)), 0.02, 0.002),
			"pressure":    metric(101_325+20*math.Cos(float64(n)/7), 101_325, 18),
		},
		Reported: &structpb.Struct{Fields: map[string]*structpb.Value{
			"firmware": structpb.NewStringValue("1.2.3"),
			"note":     structpb.NewStringValue(`<img src=x onerror="document.title='owned'">`),
		}},
		Counters: &doppelv1.Counters{Applied: uint64(n), Late: 2, Duplicate: 17, Gaps: 1},
	}
}

func fire(n uint64, sev alert.Severity, st alert.State, at time.Time) alert.Alert {
	a := alert.Alert{
		ID: n, Rule: "builtin.zscore", Metric: "temperature", Severity: sev, State: st, Value: 27.2, Score: 9.1,
		CreateTime: at.UnixNano(), FireTime: at.UnixNano(), UpdateTime: at.UnixNano(),
		Reason: "temperature 27.2 lies 9.1 sigma from its baseline 21.5 ± 0.6",
	}
	if st == alert.Resolved {
		a.ResolveTime = time.Now().UnixNano()
	}
	return a
}

// The page in a real browser, over a fleet of 10,000 twins.
func TestPage(t *testing.T) {
	s := newSite(t, nil)
	const fleet = 10_000
	for i := range fleet - 1 {
		tw := pump(fmt.Sprintf("pump-%05d", i), 100+i, 21.5)
		tw.Online = i%10 != 0
		s.Put(tw)
	}
	s.Put(pump(mac, 1, 21.5))
	for i := range 7 {
		sev := []alert.Severity{alert.Warning, alert.Critical, alert.Info}[i%3]
		s.Alarm(fmt.Sprintf("pump-%05d", i*31), fire(uint64(i+1), sev, alert.Firing, time.Now().Add(-time.Duration(i*i)*time.Minute)))
	}
	b := newBrowser(t, 1400, 900)
	b.open(s.url + "/")

	// The fleet at a glance.
	b.until("the tiles", `document.querySelector("#stat-twins").textContent === "10,000"`, `document.body.innerText`)
	b.until("the open alerts", `document.querySelector("#stat-alerts").textContent === "7" && document.querySelectorAll("#alerts-rows li").length === 7`, `document.querySelector("#alerts-rows").innerText`)
	b.until("the list", `document.querySelectorAll("#list-rows tr").length === 50`, `document.querySelector("#list-rows").innerText`)
	if got := b.eval(`document.querySelector("#alerts-rows li").className`); got != "critical firing" {
		t.Errorf("the first alert is %v, want a critical one", got)
	}
	if got := b.eval(`document.querySelector("#list-rows tr").dataset.id`); got != mac {
		t.Errorf("the first twin is %v, want %s", got, mac)
	}

	// A change is there at once.
	s.Put(pump(mac, 2, 33.25))
	b.until("the new value", `document.querySelector("#list-rows tr").innerText.includes("33.25")`, `document.querySelector("#list-rows tr").innerText`)

	// Alerts come and go.
	s.Alarm(mac, fire(100, alert.Critical, alert.Firing, time.Now()))
	b.until("the new alert", `document.querySelector("#alerts-rows li").innerText.includes("`+mac+`")`, `document.querySelector("#alerts-rows").innerText`)
	s.Alarm("pump-00000", fire(1, alert.Warning, alert.Resolved, time.Now()))
	b.until("the resolved alert gone", `document.querySelectorAll("#alerts-rows li").length === 7 && !document.querySelector("#alerts-rows").innerText.includes("pump-00000")`, `document.querySelector("#alerts-rows").innerText`)
	b.screenshot("overview-light")

	// Pages and filters.
	b.eval(`document.querySelector("#list-next").click()`)
	b.until("the second page", `document.querySelector("#list-page").textContent === "51–100 of 10,000" && document.querySelector("#list-rows tr").dataset.id === "pump-00049"`, `document.querySelector("#list-page").textContent`)
	b.eval(`document.querySelector("#list-prev").click()`)
	b.until("the first page", `document.querySelector("#list-page").textContent === "1–50 of 10,000"`, `document.querySelector("#list-page").textContent`)
	filter := func(expr string) {
		b.eval(fmt.Sprintf(`(document.querySelector("#list-filter").value = %q, document.querySelector("#list-form").requestSubmit())`, expr))
	}
	filter(`metrics["temperature"].value > 30`)
	b.until("the filtered list", `document.querySelector("#list-total").textContent === "1" && document.querySelectorAll("#list-rows tr").length === 1`, `document.querySelector("#list-rows").innerText`)
	filter("00123")
	b.until("a twin by part of its id", `document.querySelector("#list-rows tr").dataset.id === "pump-00123"`, `document.querySelector("#list-rows").innerText`)
	filter("online && temperatur > 3")
	b.until("what is wrong with the filter", `!document.querySelector("#list-error").hidden && document.querySelector("#list-error").textContent.includes("temperatur")`, `document.querySelector("#list-error").textContent`)
	b.screenshot("filter-error")
	filter("")
	b.until("the whole list", `document.querySelector("#list-error").hidden && document.querySelector("#list-total").textContent === "10,000"`, `document.querySelector("#list-total").textContent`)

	// One twin.
	b.eval(`document.querySelector("#alerts-rows li a").click()`)
	b.until("the twin", `document.querySelector("#twin-id").textContent === "`+mac+`" && !document.querySelector("#twin-body").hidden`, `document.body.innerText`)
	for i := 3; i < 60; i++ {
		temperature := 21.5 + math.Sin(float64(i)/40) + 0.5*math.Sin(float64(i)*1.7)
		if i > 45 {
			temperature += 6
		}
		s.Put(pump(mac, i, temperature))
		b.until("the sample", fmt.Sprintf(`document.querySelector("#twin-facts").innerText.includes("3 · %d")`, i), `document.querySelector("#twin-facts").innerText`)
	}
	b.until("the digests", `document.querySelector("#twin-facts").innerText.includes("8f3a0c771be294d5") && document.querySelector("#twin-facts").innerText.includes("ffffffffffffffff")`, `document.querySelector("#twin-facts").innerText`)
	b.until("the accounts", `document.querySelector("#twin-counters").innerText.includes("17")`, `document.querySelector("#twin-counters").innerText`)
	b.until("the alerts of the twin", `document.querySelectorAll("#twin-alerts li.critical.firing").length === 1`, `document.querySelector("#twin-alerts").innerText`)
	b.until("the metrics", `document.querySelectorAll("#twin-table tr").length === 3 && document.querySelectorAll("#twin-metrics button").length === 3`, `document.querySelector("#twin-table").innerText`)
	b.eval(`(document.querySelector("#twin-window").value = "60", document.querySelector("#twin-window").dispatchEvent(new Event("change")))`)
	if got := b.eval(`document.querySelector("#twin-metrics [aria-selected=true]").textContent`); got != "temperature" {
		t.Errorf("the chart shows %v first, want what the alert is about", got)
	}
	b.until("the line in the chart", drawn("accent"), `document.querySelector("#chart").width`)
	b.until("the mark of the alert", drawn("critical"), `document.querySelector("#chart").width`)
	b.screenshot("twin-light")
	b.eval(`[...document.querySelectorAll("#twin-metrics button")].find(x => x.textContent === "vibration").click()`)
	b.until("the band, without alerts behind it", drawn("band"), `document.querySelector("#chart").width`)
	if b.eval(drawn("critical")) == true {
		t.Error("the alert on temperature marks vibration")
	}
	b.eval(`[...document.querySelectorAll("#twin-metrics button")].find(x => x.textContent === "temperature").click()`)
	b.eval(`document.querySelector("#theme").click()`)
	b.until("the dark chart", drawn("accent"), `1`)
	b.screenshot("twin-dark")
	if got := b.eval(`document.querySelectorAll("#twin-reported img").length === 0 && document.title`); got != mac+" · Doppel" {
		t.Errorf("reported properties were taken for HTML: %v", got)
	}

	// A twin that is not there.
	b.eval(`location.hash = "#/twins/nosuch:twin"`)
	b.until("that there is none", `document.querySelector("#twin-error").innerText.includes("no twin nosuch:twin")`, `document.querySelector("#detail").innerText`)
	b.eval(`location.hash = "#/"`)
	b.until("the overview again", `!document.querySelector("#overview").hidden && document.querySelectorAll("#list-rows tr").length === 50`, `document.body.innerText`)
	b.screenshot("overview-dark")
	if len(b.problems) > 1 || len(b.problems) == 1 && !strings.Contains(b.problems[0], "400") { // the wrong filter
		t.Errorf("console: %v", b.problems)
	}

	// The node goes away and comes back: what happened in between is not missed.
	addr := strings.TrimPrefix(s.url, "http://")
	if err := s.server.Close(); err != nil {
		t.Fatal(err)
	}
	<-s.served
	b.until("that the link is lost", `document.querySelector("#link").dataset.state === "lost"`, `document.querySelector("#link").innerText`)
	s.Alarm("pump-00777", fire(200, alert.Critical, alert.Firing, time.Now()))
	s.Alarm(mac, fire(100, alert.Critical, alert.Resolved, time.Now()))
	s.listen(t, addr)
	b.until("that the link is back", `document.querySelector("#link").dataset.state === "live"`, `document.querySelector("#link").innerText`)
	b.until("what happened in between", `document.querySelector("#alerts-rows").innerText.includes("pump-00777") && !document.querySelector("#alerts-rows").innerText.includes("`+mac+`")`, `document.querySelector("#alerts-rows").innerText`)
}

// TestChartRemembers: a chart shows what was before the page looked.
func TestChartRemembers(t *testing.T) {
	s := newSite(t, nil)
	s.Remember(time.Now().Add(-4 * time.Minute))
	s.Put(pump(mac, 200, 21.5))
	b := newBrowser(t, 1000, 800)
	b.open(s.url + "/#/twins/" + mac)
	// The line is where only the past can have drawn it: in the left half, behind the axis.
	b.until("the past in the chart", `(() => {
		const probe = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
		probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
		probe.fillRect(0, 0, 1, 1);
		const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
		const chart = document.querySelector("#chart");
		const data = chart.getContext("2d").getImageData(chart.width * 0.2, 0, chart.width * 0.3, chart.height).data;
		let n = 0;
		for (let i = 0; i < data.length; i += 4)
			if (Math.abs(data[i] - r) < 3 && Math.abs(data[i+1] - g) < 3 && Math.abs(data[i+2] - b) < 3) n++;
		return n > 20;
	})()`, `document.querySelector("#detail").innerText`)
	b.screenshot("past")
	if len(b.problems) > 0 {
		t.Errorf("console: %v", b.problems)
	}
}

// drawn is an expression that says whether a colour of the style sheet is somewhere in the chart.
func drawn(name string) string {
	return fmt.Sprintf(`(() => {
		const probe = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
		const style = getComputedStyle(document.documentElement);
		probe.fillStyle = style.getPropertyValue("--%s");
		probe.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
		const chart = document.querySelector("#chart");
		const data = chart.getContext("2d").getImageData(0, 0, chart.width, chart.height).data;
		let n = 0;
		for (let i = 0; i < data.length; i += 4)
			if (Math.abs(data[i] - r) < 3 && Math.abs(data[i+1] - g) < 3 && Math.abs(data[i+2] - b) < 3 && Math.abs(data[i+3] - a) < 3) n++;
		return n > 20;
	})()`, name)
}

func TestPageOnANarrowScreen(t *testing.T) {
	s := newSite(t, nil)
	s.Put(pump(mac, 1, 21.5))
	b := newBrowser(t, 420, 900)
	b.open(s.url + "/")
	b.until("the list", `document.querySelectorAll("#list-rows tr").length === 1`, `document.body.innerText`)
	b.until("no open alerts", `!document.querySelector("#alerts-empty").hidden`, `document.body.innerText`)
	if got := b.eval(`document.documentElement.scrollWidth <= 420`); got != true {
		t.Errorf("the page is %v wide", b.eval(`document.documentElement.scrollWidth`))
	}
	b.screenshot("narrow")
	if len(b.problems) > 0 {
		t.Errorf("console: %v", b.problems)
	}
}

func TestPageFiles(t *testing.T) {
	s := newSite(t, nil)
	for path, want := range map[string]string{
		"/": "text/html", "/assets/main.js": "text/javascript", "/assets/style.css": "text/css", "/assets/icon.svg": "image/svg+xml",
	} {
		code, header, body := s.do(t, "GET", path, "", nil)
		if code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), want) || len(body) == 0 {
			t.Errorf("%s: got %d %q", path, code, header.Get("Content-Type"))
		}
		if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	for _, path := range []string{"/assets/", "/assets/nosuch.js", "/index.html"} {
		if code, _, _ := s.do(t, "GET", path, "", nil); code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, code)
		}
	}
}
