"""The other examples, again and again, as a service would run them: something for dashboards to show."""
