package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

const hostile = `<script>document.title="owned"</script><img src=x onerror='document.title="owned"'>`

// TestTextOfObjectsDoesNotRun: what objects say is shown as it is written, and does nothing, in pages as they
// are loaded and in what changes later.
func TestTextOfObjectsDoesNotRun(t *testing.T) {
	t.Parallel()
	w := &world{now: story()}
	hostilely := func(in *page.Input) {
		in.NetNamespaces[0].Annotations = map[string]string{v1.AnnotationMode: hostile}
		condition(&in.HostSubnets[0], v1.ConditionWarnings, "True", hostile, hostile, 1)
		for i := range in.NetNamespaces {
			for c := range in.NetNamespaces[i].Status.Conditions {
				in.NetNamespaces[i].Status.Conditions[c].Reason, in.NetNamespaces[i].Status.Conditions[c].Message = hostile, hostile
			}
		}
	}
	address := serve(t, w)
	b := browse(t, 1200, 1000)
	for _, path := range []string{"", "namespaces/billing", "hosts/node1"} {
		w.change(func(in *page.Input) { *in = story() })
		b.open(address + path)
		w.change(hostilely)
		b.until("document.body.innerText.includes(" + fmt.Sprintf("%q", hostile) + ")")
		b.open(address + path)
		b.until("document.body.innerText.includes(" + fmt.Sprintf("%q", hostile) + ")")
		if title := evaluate[string](b, "document.title"); title == "owned" || evaluate[int](b, `document.querySelectorAll("main script, main img").length`) != 0 {
			t.Errorf("%s: text of an object became part of the page, whose title is %q", path, title)
		}
	}
	// If it became part of it nevertheless, the policy would keep it from running.
	b.do(chromedp.Evaluate[chromedp.Void](`(() => { try { const s = document.createElement("div"); s.setAttribute("onclick", "document.title='owned'"); document.body.append(s); s.click(); } catch {} })()`))
	if title := evaluate[string](b, "document.title"); title == "owned" {
		t.Error("an inline handler ran")
	}
	refused := evaluate[bool](b, `(() => { try { document.body.innerHTML = "<p>x</p>"; return false; } catch { return true; } })()`)
	if !refused {
		t.Error("a script can make HTML out of text")
	}
}

// TestKeyboard: all can be reached and used without a mouse.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	w := &world{now: crowd(300, 12)}
	address := serve(t, w)
	b := browse(t, 1200, 1000)
	b.open(address)
	b.until(`document.querySelectorAll(".row").length > 5`)
	b.do(chromedp.KeyEvent("/"))
	b.until(`document.activeElement.id === "search"`)
	// The protocol sends the character apart from the key, which the page has taken.
	b.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("search").value = ""`))
	b.do(chromedp.KeyEvent("worker-03 order"))
	b.until(`!document.getElementById("shown").textContent.startsWith("300") && [...document.querySelectorAll(".row")].every((r) => r.innerText.includes("worker-03"))`)
	if query := evaluate[string](b, "location.search"); query != "?q=worker-03+order" {
		t.Errorf("the address does not keep the search: %s", query)
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`document.getElementById("shown").textContent.startsWith("300 of 300")`)
	// From the search on, Tab leads to the list, at its first row, and then past it.
	b.do(chromedp.KeyEvent(kb.Tab))
	b.until(`document.activeElement.closest(".row") && document.activeElement.closest(".row").getAttribute("aria-rowindex") === "1"`)
	for _, step := range []struct{ key, row string }{{kb.ArrowDown, "2"}, {kb.ArrowDown, "3"}, {kb.ArrowUp, "2"}, {kb.End, "300"}, {kb.ArrowDown, "300"}, {kb.ArrowUp, "299"}, {kb.Home, "1"}} {
		b.do(chromedp.KeyEvent(step.key))
		b.until(`document.activeElement.closest(".row") && document.activeElement.closest(".row").getAttribute("aria-rowindex") === "` + step.row + `"`)
		seen := `(() => { const r = document.activeElement.getBoundingClientRect(), s = document.querySelector(".scroller").getBoundingClientRect(); return r.top >= s.top - 1 && r.bottom <= s.bottom + 1; })()`
		if !evaluate[bool](b, seen) {
			t.Errorf("after %q row %s has the focus, and cannot be seen", step.key, step.row)
		}
	}
	// A change under the focus does not take it away.
	name := evaluate[string](b, "document.activeElement.textContent")
	w.change(func(in *page.Input) {
		for i := range in.NetNamespaces {
			if in.NetNamespaces[i].Name == name {
				in.NetNamespaces[i].EgressIPs = append(in.NetNamespaces[i].EgressIPs, "10.9.240.1")
			}
		}
	})
	b.until(`document.querySelector(".row[data-id='` + name + `']").innerText.includes("10.9.240.1")`)
	if focused := evaluate[string](b, "document.activeElement.textContent"); focused != name {
		t.Errorf("after a change of %s the focus is on %q", name, focused)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(`document.title === "namespace ` + name + `"`)
	b.quiet()
}

// TestAccessible: assistive technology gets a name for everything that can be used, roles of the list
// and its rows, and colours that can be read.
func TestAccessible(t *testing.T) {
	t.Parallel()
	address := serve(t, &world{now: story()})
	b := browse(t, 1200, 1400)
	for _, path := range []string{"", "namespaces/payments", "hosts/node3"} {
		for _, scheme := range []string{"light", "dark"} {
			b.colours(scheme)
			b.open(address + path)
			if path == "" {
				b.until(`document.querySelectorAll(".row").length > 5`)
			}
			named := make(map[string][]string)
			for _, n := range call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
				if n.Ignored || n.Role == nil {
					continue
				}
				role, name := valueOf(n.Role), valueOf(n.Name)
				named[role] = append(named[role], name)
				if slices.Contains([]string{"link", "button", "searchbox", "grid", "navigation", "image", "heading", "RootWebArea", "table"}, role) && strings.TrimSpace(name) == "" && role != "table" {
					t.Errorf("%s: a %s has no name", path, role)
				}
			}
			want := map[string]int{"banner": 1, "main": 1, "contentinfo": 1, "heading": 3, "status": 1}
			if path == "" {
				want["grid"], want["row"], want["gridcell"], want["searchbox"], want["navigation"], want["list"] = 1, 9, 27, 1, 1, 3
				if !slices.ContainsFunc(named["link"], func(name string) bool { return name == "payments" }) {
					t.Errorf("no link is named payments: %q", named["link"])
				}
			}
			for role, n := range want {
				if len(named[role]) < n {
					t.Errorf("%s has %d of role %s, want %d: %q", path, len(named[role]), role, n, named[role])
				}
			}
			if faint := evaluate[[]string](b, faintText); len(faint) > 0 {
				t.Errorf("%s, %s: text with less contrast than 4.5 to 1: %q", path, scheme, faint)
			}
		}
	}
	b.quiet()
}

func valueOf(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}

// faintText finds text that is hard to read: it compares the colour of each text with the one behind it.
const faintText = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = (c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
    if (!text || !e.checkVisibility() || e.closest(".sr, .skip")) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) faint.push(text.slice(0, 40) + " " + contrast.toFixed(2));
  }
  return faint;
})()`

// TestWithoutJavaScript: the page is the same as plain HTML, and its links lead on.
func TestWithoutJavaScript(t *testing.T) {
	t.Parallel()
	address := serve(t, &world{now: story()})
	b := browse(t, 1200, 1000)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(chromedp.Navigate(address))
	text := b.text("main")
	for _, part := range []string{"payments-test", "192.168.7.212", "node4", "MultipleNamespaces", "Needs attention"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in the page:\n%s", part, text)
		}
	}
	if evaluate[bool](b, `document.getElementById("search-box").checkVisibility()`) {
		t.Error("there is a search that does nothing")
	}
	b.do(chromedp.Click(chromedp.CSS(`#plain a[href="namespaces/shop"]`)))
	b.until(`document.title === "namespace shop"`)
	if text := b.text("main"); !strings.Contains(text, "Traffic leaves with 192.168.7.212 by node2.") {
		t.Errorf("the page of shop says:\n%s", text)
	}
	b.quiet()
}

// TestThousandNamespaces: the page has about as many elements with a thousand namespaces as with a
// hundred, wherever one scrolls, and one change makes few.
func TestThousandNamespaces(t *testing.T) {
	t.Parallel()
	b := browse(t, 1280, 1000)
	count := func(namespaces, hosts int) (nodes int) {
		w := &world{now: crowd(namespaces, hosts)}
		b.open(serve(t, w))
		b.until(fmt.Sprintf(`document.getElementById("shown").textContent.startsWith("%d of %d")`, namespaces, namespaces))
		b.do(chromedp.Evaluate[chromedp.Void](`window.long = 0; new PerformanceObserver((l) => { window.long += l.getEntries().length; }).observe({entryTypes: ["longtask"]})`))
		most := 0
		const steps = 25
		for i := range steps {
			b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(() => { const s = document.querySelector(".scroller"); s.scrollTop = s.scrollHeight * %d / %d; })()`, i, steps)))
			first := fmt.Sprintf(`Math.abs(%d - Math.floor(document.querySelector(".scroller").scrollTop / 40))`, i*namespaces/steps)
			b.until(first + ` <= 30 && [...document.querySelectorAll(".row")].some((r) => r.getAttribute("aria-rowindex") == Math.min(Math.floor(document.querySelector(".scroller").scrollTop / 40) + 1, ` + fmt.Sprint(namespaces) + `))`)
			most = max(most, b.nodeCount())
		}
		t.Logf("%d namespaces, %d hosts: at most %d elements; %d tasks of more than 50 ms while it was scrolled through", namespaces, hosts, most, evaluate[int](b, "window.long"))
		b.do(chromedp.Evaluate[chromedp.Void](`(() => { document.querySelector(".scroller").scrollTop = 0; window.made = 0;
			new MutationObserver((l) => { for (const m of l) window.made += m.addedNodes.length; }).observe(document.getElementById("picture"), {childList: true, subtree: true}); })()`))
		b.until(`document.querySelector(".row[aria-rowindex='3']")`)
		changed := evaluate[string](b, `document.querySelector(".row[aria-rowindex='3']").dataset.id`)
		b.do(chromedp.Evaluate[chromedp.Void](`window.made = 0`))
		w.change(func(in *page.Input) {
			i := slices.IndexFunc(in.NetNamespaces, func(n v1.NetNamespace) bool { return n.Name == changed })
			in.NetNamespaces[i].EgressIPs = append(in.NetNamespaces[i].EgressIPs, "10.9.241.9")
		})
		b.until(`document.querySelector("#picture").innerText.includes("10.9.241.9")`)
		if made := evaluate[int](b, "window.made"); made > 40 {
			t.Errorf("with %d namespaces one change made %d elements in the picture", namespaces, made)
		}
		return most
	}
	few, many := count(100, 10), count(1000, 60)
	if many > few*3/2 || many > 2500 {
		t.Errorf("the page has %d elements with 1000 namespaces, and %d with 100", many, few)
	}
	b.quiet()
}

// TestNarrow: a narrow window needs no scrolling to the side.
func TestNarrow(t *testing.T) {
	t.Parallel()
	w := &world{now: story()}
	w.change(func(in *page.Input) {
		in.NetNamespaces = append(in.NetNamespaces, objects.NetNamespace(strings.Repeat("long-", 12)+"x", 300, "192.168.7.230"))
	})
	address := serve(t, w)
	b := browse(t, 400, 900)
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 400, Height: 900, DeviceScaleFactor: 1})
	for _, path := range []string{"", "namespaces/" + strings.Repeat("long-", 12) + "x", "hosts/node2"} {
		b.open(address + path)
		if wide := evaluate[int](b, "document.scrollingElement.scrollWidth"); wide > 400 {
			t.Errorf("%s is %d wide in a window of 400", path, wide)
		}
	}
}
