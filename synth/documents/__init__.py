"""From files to passages: readers make documents, the splitter cuts them into passages."""
