package topic_test

import (
	"fmt"

	"github.com/anyquic/anyquic/mqtt/topic"
)

func ExampleTree() {
	tree := topic.NewTree[string, byte]() // by client, with its QoS
	tree.Subscribe("home/+/temp", "display", 0)
	tree.Subscribe("home/#", "log", 1)
	tree.Subscribe("$share/workers/home/#", "worker1", 1)
	tree.Subscribe("$share/workers/home/#", "worker2", 1)

	var found topic.Result[string, byte]
	for range 2 {
		tree.Match("home/kitchen/temp", &found)
		for _, set := range found.Plain {
			for client, qos := range set.All() {
				fmt.Println(client, qos)
			}
		}
		for _, group := range found.Shared {
			for client := range group.All() {
				fmt.Println("for", group.Name, "to", client)
				break
			}
		}
	}
	// Output:
	// log 1
	// display 0
	// for workers to worker1
	// log 1
	// display 0
	// for workers to worker2
}

func ExampleRetained() {
	retained := topic.NewRetained[string]()
	retained.Set("home/kitchen/temp", "21.5")
	retained.Set("$SYS/uptime", "17")
	retained.Match("+/kitchen/#", func(name, value string) bool {
		fmt.Println(name, value)
		return true
	})
	// Output: home/kitchen/temp 21.5
}

func ExampleMatches() {
	fmt.Println(topic.Matches("sport/#", "sport"), topic.Matches("#", "$SYS/uptime"))
	// Output: true false
}
